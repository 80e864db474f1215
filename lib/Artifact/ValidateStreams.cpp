//===- ValidateStreams.cpp - Streams that cannot block one another ---------===//
#include "lib/Artifact/ValidateDetail.h"

#include <vector>

namespace helix::artifact {
using namespace detail;

bool detail::validateStreams(const Entry &entry, const std::string &where, Error &error) {
  if (entry.streams() == 0 || entry.streams() > kMaxStreams)
    return refuse(error, where,
                  "it has " + std::to_string(entry.streams()) + " streams, not 1 to " + std::to_string(kMaxStreams));
  if (entry.events() > count(entry.commands()))
    return refuse(error, where, "it has more events than commands to record them");
  // Every wait comes after its record in one list of all streams: there is no cycle, and no wait is for ever.
  constexpr uint32_t none = ~uint32_t(0);
  std::vector<uint32_t> recordedOn(entry.events(), none);
  uint32_t collectives = none, recorded = 0;
  for (flatbuffers::uoffset_t i = 0; i < count(entry.commands()); ++i) {
    const Command &command = *entry.commands()->Get(i);
    std::string place = where + ", command " + std::to_string(i);
    uint32_t stream = command.stream();
    if (stream >= entry.streams())
      return refuse(error, place,
                    "it is on stream " + std::to_string(stream) + " of " + std::to_string(entry.streams()));
    if (isCollective(command.work_type())) {
      if (collectives != none && collectives != stream)
        return refuse(error, place,
                      "it is a collective on stream " + std::to_string(stream) + ", those before it are on " +
                          std::to_string(collectives) + "; one stream has them all");
      collectives = stream;
    }
    if (const Record *record = command.work_as_Record()) {
      if (recordedOn[record->event()] != none)
        return refuse(error, place, "event " + std::to_string(record->event()) + " is recorded twice");
      recordedOn[record->event()] = stream;
      ++recorded;
    }
    if (const Wait *wait = command.work_as_Wait()) {
      uint32_t on = recordedOn[wait->event()];
      if (on == none || on == stream)
        return refuse(error, place,
                      "event " + std::to_string(wait->event()) +
                          (on == none ? " is not recorded before it" : " is recorded on the same stream"));
    }
  }
  return recorded == entry.events() || refuse(error, where,
                                              "of its " + std::to_string(entry.events()) + " events only " +
                                                  std::to_string(recorded) + " are recorded");
}

} // namespace helix::artifact
