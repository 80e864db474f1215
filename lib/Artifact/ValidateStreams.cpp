//===- ValidateStreams.cpp - Streams that cannot block one another ---------===//
#include "lib/Artifact/ValidateDetail.h"

#include <algorithm>
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
  uint32_t recorded = 0;
  // Per stream, how many commands of each stream are known to be done; of an event, what its record knew.
  using Clock = std::vector<uint64_t>;
  std::vector<Clock> known(entry.streams(), Clock(entry.streams())), told(entry.events());
  uint32_t collectiveOn = none;
  uint64_t collectiveAt = 0;
  for (flatbuffers::uoffset_t i = 0; i < count(entry.commands()); ++i) {
    const Command &command = *entry.commands()->Get(i);
    std::string place = where + ", command " + std::to_string(i);
    uint32_t stream = command.stream();
    if (stream >= entry.streams())
      return refuse(error, place,
                    "it is on stream " + std::to_string(stream) + " of " + std::to_string(entry.streams()));
    uint64_t position = known[stream][stream]++;
    if (isCollective(command.work_type())) {
      if (collectiveOn != none && known[stream][collectiveOn] <= collectiveAt)
        return refuse(error, place,
                      "it is a collective on stream " + std::to_string(stream) +
                          " without an order with the one before it, on stream " + std::to_string(collectiveOn));
      collectiveOn = stream;
      collectiveAt = position;
    }
    if (const Record *record = command.work_as_Record()) {
      if (recordedOn[record->event()] != none)
        return refuse(error, place, "event " + std::to_string(record->event()) + " is recorded twice");
      recordedOn[record->event()] = stream;
      told[record->event()] = known[stream];
      ++recorded;
    }
    if (const Wait *wait = command.work_as_Wait()) {
      uint32_t on = recordedOn[wait->event()];
      if (on == none || on == stream)
        return refuse(error, place,
                      "event " + std::to_string(wait->event()) +
                          (on == none ? " is not recorded before it" : " is recorded on the same stream"));
      for (uint32_t s = 0; s < entry.streams(); ++s)
        known[stream][s] = std::max(known[stream][s], told[wait->event()][s]);
    }
  }
  return recorded == entry.events() || refuse(error, where,
                                              "of its " + std::to_string(entry.events()) + " events only " +
                                                  std::to_string(recorded) + " are recorded");
}

} // namespace helix::artifact
