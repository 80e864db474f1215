//===- TraceFileTest.cpp - Measured steps from traces of helix-run ---------===//
#include "lib/Perf/TraceFile.h"
#include "PricedTiny.h"

#include <fstream>
#include <sstream>

using namespace helix;
using namespace helix::perf;
using namespace helix::test;

namespace {

/// One traced command, in microseconds.
struct Event {
  uint32_t rank, stream, command;
  double start, duration;
};

std::string traceText(const std::string &artifact, const Program &program, const std::vector<Event> &events,
                      const std::string &link) {
  std::ostringstream text;
  text << R"({"displayTimeUnit": "ms", "helix": {"version": 1, "artifact": ")" << artifact
       << R"(", "ranks": 2, "link": )" << link
       << R"(, "steps": [{"step": 3, "entry": "Decode", "entry_index": 0, "past": [20, 7, 9])"
       << R"(, "q_len": [1, 1, 1], "start_us": 0, "wall_us": 5000}]},
  "traceEvents": [{"ph": "M", "pid": 0, "name": "process_name", "args": {"name": "rank 0"}},
  {"ph": "X", "pid": 0, "tid": 0, "ts": 4000, "dur": 100, "cat": "wait", "name": "join", "args": {"kind": "join", "step": 3}})";
  for (const Event &event : events)
    text << ",\n{\"ph\": \"X\", \"pid\": " << event.rank << ", \"tid\": " << event.stream << ", \"ts\": " << event.start
         << ", \"dur\": " << event.duration << R"(, "args": {"step": 3, "command": )" << event.command
         << R"(, "kind": ")" << program.commands[event.command].what << "\"}}";
  text << "]}";
  return text.str();
}

struct Fixture {
  Tiny tiny{TinyOptions{.kvp = 2, .slots = 3, .chunks = 2}};
  std::string path = tiny.directory.file("trace.json");
  MeasuredRun run;
  Error error;

  bool read(const std::string &text) {
    std::ofstream(path) << text;
    return readTrace(path, run, error);
  }
  Program program() { return tiny.program(0, {{20, 7, 9}, {1, 1, 1}}); }
  std::string artifact() const { return tiny.directory.file("t.hlx"); }
};

} // namespace

TEST(TraceFile, TimesOfTwoRanks) {
  Fixture fixture;
  Program program = fixture.program();
  // The first record, wait and collective of the embedding's sum.
  uint32_t record = 0, wait = 0, sum = 0;
  for (uint32_t i = 0; i < program.commands.size() && !sum; ++i) {
    if (std::holds_alternative<Record>(program.commands[i].work))
      record = i;
    if (std::holds_alternative<Wait>(program.commands[i].work))
      wait = i;
    if (std::holds_alternative<Exchange>(program.commands[i].work))
      sum = i;
  }
  ASSERT_TRUE(record && wait && sum);
  ASSERT_TRUE(fixture.read(traceText(fixture.artifact(), program,
                                     {{0, 0, 0, 100, 10},
                                      {1, 0, 0, 100, 30},
                                      {0, 0, record, 110, 1},
                                      {1, 0, record, 130, 1},
                                      {0, 1, wait, 0, 125}, // 14 after the record
                                      {1, 1, wait, 0, 141}, // 10 after it
                                      {0, 1, sum, 125, 25},
                                      {1, 1, sum, 141, 11},
                                      {0, 0, record + 40, 200, 5}}, // rank 1 was not traced there
                                     R"({"latency_s": 2e-4, "bytes_per_s": 1e9})")))
      << fixture.error.message;
  ASSERT_EQ(fixture.run.steps.size(), 1U);
  const MeasuredStep &step = fixture.run.steps[0];
  EXPECT_DOUBLE_EQ(step.seconds, 5e-3);
  EXPECT_NEAR(step.commands[0].value(), 20e-6, 1e-12);
  EXPECT_NEAR(step.commands[sum].value(), 18e-6, 1e-12); // from 133 on average until 151
  EXPECT_FALSE(step.commands[record + 40]);
  ASSERT_EQ(step.wakeups.size(), 2U);
  EXPECT_NEAR(step.wakeups[0], 14e-6, 1e-12);
  EXPECT_NEAR(step.wakeups[1], 10e-6, 1e-12);
  EXPECT_DOUBLE_EQ(fixture.run.delay.value().latency, 2e-4);
  EXPECT_EQ(step.program.commands.size(), program.commands.size());
}

TEST(TraceFile, FindsTheArtifactBesideTheTrace) {
  Fixture fixture;
  EXPECT_TRUE(fixture.read(traceText("/elsewhere/t.hlx", fixture.program(), {{0, 0, 0, 0, 1}}, "null")))
      << fixture.error.message;
  EXPECT_FALSE(fixture.run.delay);
}

TEST(TraceFile, RefusesWhatItCannotUse) {
  Fixture fixture;
  auto refusal = [&](const std::string &text) {
    EXPECT_FALSE(fixture.read(text)) << text;
    return fixture.error;
  };
  std::string good = traceText(fixture.artifact(), fixture.program(), {{0, 0, 0, 0, 1}}, "null");
  auto with = [&](const std::string &from, const std::string &to) {
    std::string text = good;
    EXPECT_NE(text.find(from), std::string::npos);
    return text.replace(text.find(from), from.size(), to);
  };
  for (const std::string &text : {std::string(),
                                  std::string("[]"),
                                  std::string("{}"),
                                  good.substr(0, good.size() / 2),
                                  with("\"artifact\"", "\"model\""),
                                  with("\"ranks\": 2", "\"ranks\": 4"),
                                  with("\"steps\"", "\"stepps\""),
                                  with("\"entry_index\": 0", "\"entry_index\": 7"),
                                  with("[20, 7, 9]", "[20, 7]"),
                                  with("[20, 7, 9]", "[20, 7, -9]"),
                                  with("\"wall_us\": 5000", "\"wall_us\": 0"),
                                  with("\"wall_us\": 5000", "\"wall_us\": 1e300"),
                                  with("[20, 7, 9]", "[20, 7, 1000000000]"),
                                  with("\"q_len\": [1", "\"q_len\": [2"),
                                  with("\"command\": 0", "\"command\": 100000"),
                                  with("\"command\": 0", "\"command\": 40"), // as of an artifact that was compiled anew
                                  with("\"step\": 3, \"entry\"", "\"step\": 4, \"entry\""),
                                  with("\"link\": null", "\"link\": {\"latency_s\": 1}"),
                                  with("\"pid\": 0, \"tid\": 0, \"ts\": 0", "\"pid\": 9, \"ts\": 0"),
                                  with("\"traceEvents\"", "\"events\"")})
    EXPECT_EQ(refusal(text).code, ErrorCode::TraceInvalid) << fixture.error.message;
  EXPECT_EQ(refusal(traceText("/nowhere/none.hlx", {}, {}, "null")).code, ErrorCode::ArtifactUnreadable);
}
