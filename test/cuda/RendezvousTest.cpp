//===- RendezvousTest.cpp - Processes that meet ----------------------------===//
#include "runtime/Cuda/Rendezvous.h"
#include "runtime/Error.h"
#include "test/unit/Core/TinyModel.h"

#include <gtest/gtest.h>

#include <fstream>
#include <netinet/in.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

using namespace helix;
using namespace helix::cuda;
using helix::test::TemporaryDirectory;

namespace {

Token made() {
  Token token = {};
  token[0] = 42, token[127] = 7;
  return token;
}

/// The error of each of the processes, none if it met the others.
std::vector<std::string> meetAll(const std::vector<Meeting> &meetings) {
  std::vector<std::string> errors(meetings.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < meetings.size(); ++i)
    threads.emplace_back([&, i] {
      try {
        EXPECT_EQ(meet(meetings[i], made), made());
      } catch (const Error &error) {
        EXPECT_EQ(error.code(), ErrorCode::RendezvousFailed);
        errors[i] = error.what();
      }
    });
  for (std::thread &thread : threads)
    thread.join();
  return errors;
}

std::vector<Meeting> meetingsAt(const std::string &address, uint32_t count, int milliseconds = 20000) {
  std::vector<Meeting> meetings;
  for (uint32_t i = 0; i < count; ++i)
    meetings.push_back({address, i, count, 99, std::chrono::milliseconds(milliseconds)});
  return meetings;
}

/// A port of this machine that is free now.
std::string freeAddress() {
  int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  EXPECT_EQ(::bind(socket, reinterpret_cast<sockaddr *>(&address), size), 0);
  EXPECT_EQ(::getsockname(socket, reinterpret_cast<sockaddr *>(&address), &size), 0);
  ::close(socket);
  return "tcp:127.0.0.1:" + std::to_string(ntohs(address.sin_port));
}

TEST(Rendezvous, AtAFile) {
  TemporaryDirectory directory;
  std::vector<Meeting> meetings = meetingsAt("file:" + directory.file("meet"), 4);
  EXPECT_EQ(meetAll(meetings), std::vector<std::string>(4));
  leave(meetings[1]);
  EXPECT_TRUE(std::filesystem::exists(directory.file("meet"))) << "process 0 alone removes it";
  leave(meetings[0]);
  EXPECT_TRUE(std::filesystem::is_empty(directory.path));
}

TEST(Rendezvous, OverTcp) { EXPECT_EQ(meetAll(meetingsAt(freeAddress(), 4)), std::vector<std::string>(4)); }

TEST(Rendezvous, AFileThatIsThereIsRefused) {
  TemporaryDirectory directory;
  std::ofstream(directory.file("meet")) << "another run's";
  for (const std::string &error : meetAll(meetingsAt("file:" + directory.file("meet"), 2)))
    EXPECT_NE(error, "");
  std::ifstream file(directory.file("meet"));
  std::string line;
  std::getline(file, line);
  EXPECT_EQ(line, "another run's");
}

TEST(Rendezvous, NoOneComes) {
  TemporaryDirectory directory;
  for (const std::string &address : {"file:" + directory.file("meet"), freeAddress()}) {
    std::vector<Meeting> meetings = meetingsAt(address, 2, 200);
    EXPECT_NE(meetAll({meetings[1]})[0].find("waited 200 ms"), std::string::npos);
  }
  EXPECT_NE(meetAll({meetingsAt(freeAddress(), 2, 200)[0]})[0].find("waited 200 ms"), std::string::npos);
}

TEST(Rendezvous, AnAddressThatDoesNotAnswer) {
  // A listener that takes nobody drops who comes once its queue is full.
  std::string where = freeAddress();
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(uint16_t(std::stoi(where.substr(where.rfind(':') + 1))));
  auto *to = reinterpret_cast<sockaddr *>(&address);
  int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  ASSERT_EQ(::bind(listener, to, sizeof(address)), 0);
  ASSERT_EQ(::listen(listener, 0), 0);
  int others[4];
  for (int &other : others) {
    other = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    ::connect(other, to, sizeof(address));
  }
  auto begin = std::chrono::steady_clock::now();
  EXPECT_NE(meetAll({meetingsAt(where, 2, 500)[1]})[0].find("waited 500 ms"), std::string::npos);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  for (int other : others)
    ::close(other);
  ::close(listener);
}

TEST(Rendezvous, AnotherArtifactIsRefused) {
  TemporaryDirectory directory;
  std::vector<Meeting> meetings = meetingsAt("file:" + directory.file("meet"), 2, 2000);
  meetings[1].checksum = 100;
  EXPECT_NE(meetAll(meetings)[1].find("the same artifact"), std::string::npos);
  meetings = meetingsAt(freeAddress(), 2, 2000);
  meetings[1].checksum = 100;
  for (const std::string &error : meetAll(meetings))
    EXPECT_NE(error.find("the same artifact"), std::string::npos) << error;
}

TEST(Rendezvous, AddressesThatAreNone) {
  for (const char *address : {"", "file:", "tcp:", "tcp:localhost", "http://x", "file:/nowhere/at/all"})
    EXPECT_NE(meetAll({meetingsAt(address, 2, 200)[0]})[0], "") << address;
}

} // namespace
