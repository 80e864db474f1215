//===- Rendezvous.cpp - How processes of a run find each other -------------===//
#include "runtime/Cuda/Rendezvous.h"
#include "runtime/Error.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <set>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

namespace helix::cuda {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kMagic = 0x314d58494c4548; // "HELIXM1"

struct Hello {
  uint64_t magic = kMagic, checksum = 0;
  uint32_t index = 0, count = 0;
};
struct Answer {
  uint64_t magic = kMagic, checksum = 0;
  Token token = {};
};

Error failed(const Meeting &meeting, const std::string &text) {
  return {ErrorCode::RendezvousFailed, "process " + std::to_string(meeting.index) + " of " +
                                           std::to_string(meeting.count) + ", at '" + meeting.address + "': " + text};
}

Error late(const Meeting &meeting) {
  return {ErrorCode::RendezvousFailed, "process " + std::to_string(meeting.index) + " of " +
                                           std::to_string(meeting.count) + " waited " +
                                           std::to_string(meeting.timeout.count()) + " ms for '" + meeting.address +
                                           "'; start all processes with the same --rendezvous"};
}

void checkAnswer(const Meeting &meeting, const Answer &answer) {
  if (answer.magic != kMagic)
    throw failed(meeting, "what is there is not of helix-run");
  if (answer.checksum != meeting.checksum)
    throw failed(meeting, "the processes do not run the same artifact");
}

/// A descriptor that is closed at the end.
struct Descriptor {
  int number = -1;
  explicit Descriptor(int number) : number(number) {}
  Descriptor(const Descriptor &) = delete;
  ~Descriptor() {
    if (number >= 0)
      ::close(number);
  }
};

int left(Clock::time_point deadline) {
  auto rest = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return int(std::clamp<long long>(rest, 0, 1 << 30));
}

//===----------------------------------------------------------------------===//
// A file
//===----------------------------------------------------------------------===//

void writeToken(const Meeting &meeting, const std::string &path, const Token &token) {
  // Whole or not at all: it gets its name when it is written.
  std::string hidden = path + "." + std::to_string(::getpid());
  Answer answer{kMagic, meeting.checksum, token};
  {
    Descriptor file(::open(hidden.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (file.number < 0 || ::write(file.number, &answer, sizeof(answer)) != ssize_t(sizeof(answer))) {
      std::string reason = std::strerror(errno);
      ::unlink(hidden.c_str());
      throw failed(meeting, "cannot write the file: " + reason);
    }
  }
  int linked = ::link(hidden.c_str(), path.c_str()), reason = errno;
  ::unlink(hidden.c_str());
  if (linked != 0)
    throw failed(meeting, reason == EEXIST
                              ? "the file is there already, maybe of another run; remove it or name another"
                              : "cannot make the file: " + std::string(std::strerror(reason)));
}

Token readToken(const Meeting &meeting, const std::string &path) {
  for (Clock::time_point deadline = Clock::now() + meeting.timeout;;) {
    Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    Answer answer;
    if (file.number >= 0) {
      if (::read(file.number, &answer, sizeof(answer)) != ssize_t(sizeof(answer)))
        answer.magic = 0;
      checkAnswer(meeting, answer);
      return answer.token;
    }
    if (Clock::now() >= deadline)
      throw late(meeting);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

//===----------------------------------------------------------------------===//
// TCP
//===----------------------------------------------------------------------===//

/// All of it before the deadline, or false.
bool transfer(int socket, void *bytes, size_t count, bool sends, Clock::time_point deadline) {
  for (size_t done = 0; done < count;) {
    pollfd wait{socket, short(sends ? POLLOUT : POLLIN), 0};
    if (::poll(&wait, 1, left(deadline)) <= 0)
      return false;
    char *at = static_cast<char *>(bytes) + done;
    ssize_t moved = sends ? ::send(socket, at, count - done, MSG_NOSIGNAL) : ::recv(socket, at, count - done, 0);
    if (moved <= 0)
      return false;
    done += size_t(moved);
  }
  return true;
}

struct Addresses {
  addrinfo *list = nullptr;
  ~Addresses() {
    if (list)
      ::freeaddrinfo(list);
  }
  void resolve(const Meeting &meeting, const std::string &rest, bool listens) {
    size_t colon = rest.rfind(':');
    if (colon == std::string::npos || colon + 1 == rest.size())
      throw failed(meeting, "an address is tcp:HOST:PORT");
    std::string host = rest.substr(0, colon), port = rest.substr(colon + 1);
    addrinfo hints = {};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = listens ? AI_PASSIVE : 0;
    if (int code = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &list))
      throw failed(meeting, ::gai_strerror(code));
  }
};

Token serve(const Meeting &meeting, const std::string &rest, const std::function<Token()> &make) {
  Clock::time_point deadline = Clock::now() + meeting.timeout;
  Addresses addresses;
  addresses.resolve(meeting, rest, /*listens=*/true);
  Descriptor server(::socket(addresses.list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  int yes = 1;
  ::setsockopt(server.number, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  if (server.number < 0 || ::bind(server.number, addresses.list->ai_addr, addresses.list->ai_addrlen) != 0 ||
      ::listen(server.number, int(meeting.count)) != 0)
    throw failed(meeting, "cannot listen: " + std::string(std::strerror(errno)));
  Answer answer{kMagic, meeting.checksum, make()};
  std::set<uint32_t> joined;
  while (joined.size() + 1 < meeting.count) {
    pollfd wait{server.number, POLLIN, 0};
    if (::poll(&wait, 1, left(deadline)) <= 0)
      throw late(meeting);
    Descriptor peer(::accept4(server.number, nullptr, nullptr, SOCK_CLOEXEC));
    Hello hello;
    // A stranger, or one that has given up, is no reason to fail; but it may not hold up the others for long.
    auto soon = std::min(deadline, Clock::now() + std::chrono::seconds(2));
    if (peer.number < 0 || !transfer(peer.number, &hello, sizeof(hello), false, soon) || hello.magic != kMagic)
      continue;
    // The one that is answered compares, too.
    bool sent = transfer(peer.number, &answer, sizeof(answer), true, soon);
    if (hello.checksum != meeting.checksum || hello.count != meeting.count)
      throw failed(meeting, "the processes do not run the same artifact");
    if (hello.index == 0 || hello.index >= meeting.count)
      throw failed(meeting, "there are two processes 0");
    if (sent && !joined.insert(hello.index).second)
      throw failed(meeting, "there are two processes " + std::to_string(hello.index));
  }
  return answer.token;
}

/// Connects by the deadline; false if it cannot. Packets may get lost without an answer.
bool connectTo(int socket, const addrinfo &address, Clock::time_point deadline) {
  if (::connect(socket, address.ai_addr, address.ai_addrlen) == 0)
    return true;
  pollfd wait{socket, POLLOUT, 0};
  int error = 0;
  socklen_t size = sizeof(error);
  return errno == EINPROGRESS && ::poll(&wait, 1, left(deadline)) == 1 &&
         ::getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
}

Token ask(const Meeting &meeting, const std::string &rest) {
  for (Clock::time_point deadline = Clock::now() + meeting.timeout;;) {
    Addresses addresses;
    addresses.resolve(meeting, rest, /*listens=*/false);
    Descriptor peer(::socket(addresses.list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    Hello hello{kMagic, meeting.checksum, meeting.index, meeting.count};
    Answer answer;
    if (peer.number >= 0 && connectTo(peer.number, *addresses.list, deadline) &&
        transfer(peer.number, &hello, sizeof(hello), true, deadline) &&
        transfer(peer.number, &answer, sizeof(answer), false, deadline)) {
      checkAnswer(meeting, answer);
      return answer.token;
    }
    if (Clock::now() >= deadline)
      throw late(meeting);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

} // namespace

Token meet(const Meeting &meeting, const std::function<Token()> &make) {
  const std::string &address = meeting.address;
  if (address.starts_with("file:") && address.size() > 5) {
    if (meeting.index != 0)
      return readToken(meeting, address.substr(5));
    Token token = make();
    writeToken(meeting, address.substr(5), token);
    return token;
  }
  if (address.starts_with("tcp:"))
    return meeting.index == 0 ? serve(meeting, address.substr(4), make) : ask(meeting, address.substr(4));
  throw failed(meeting, "an address is file:PATH or tcp:HOST:PORT");
}

void leave(const Meeting &meeting) noexcept {
  if (meeting.index == 0 && meeting.address.starts_with("file:"))
    ::unlink(meeting.address.c_str() + 5);
}

} // namespace helix::cuda
