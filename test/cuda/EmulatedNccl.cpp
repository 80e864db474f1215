//===- EmulatedNccl.cpp - NCCL among processes without GPUs ----------------===//
//
// The functions of runtime/Cuda/Nccl.h over sockets of this machine, as a library for HELIX_LIBNCCL, on streams of
// EmulatedDriver.cpp. HELIX_EMULATED_LOG gets a line per call. HELIX_EMULATED_NCCL makes it misbehave:
//
//   late       initialisation never ends
//   fail:N     the N-th group of messages ends in an asynchronous error
//   stall:N    the N-th group of messages never ends, until the communicator is aborted
//
//===-----------------------------------------------------------------------===//
#include "runtime/Cuda/Nccl.h"

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <poll.h>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <thread>
#include <unistd.h>
#include <vector>

using namespace helix::cuda;

namespace {

enum Result { Success = 0, SystemError = 2, InvalidArgument = 4, RemoteError = 6, InProgress = 7 };

void log(const std::string &line) {
  if (const char *path = std::getenv("HELIX_EMULATED_LOG"))
    if (std::FILE *file = std::fopen(path, "a")) {
      std::fprintf(file, "%s\n", line.c_str());
      std::fclose(file);
    }
}

std::string misbehaviour() {
  const char *text = std::getenv("HELIX_EMULATED_NCCL");
  return text ? text : "";
}

struct Message {
  bool sends;
  char *at;
  size_t bytes;
  int peer;
};

/// Sockets among all processes, by rank of the first communicator; its parts share them.
struct World {
  std::vector<int> sockets;
  std::atomic<int> groups{0};
};

} // namespace

struct ncclComm {
  World *world = nullptr;
  int rank = 0;
  std::vector<int> members; ///< ranks of the world
  std::atomic<int> state{Success};
  Event last = nullptr; ///< its operations run in order, whatever their streams
};

namespace {

struct Group {
  ncclComm *comm;
  std::vector<Message> messages;
  int number;
};

thread_local std::vector<std::pair<ncclComm *, Message>> pending;
thread_local Stream pendingStream;

/// Sends and receives side by side, so that two who send much to each other do not wait.
bool exchange(Group &group) {
  std::vector<size_t> done(group.messages.size());
  for (;;) {
    std::vector<pollfd> waits;
    std::vector<size_t> which;
    for (size_t i = 0; i < group.messages.size(); ++i) {
      const Message &message = group.messages[i];
      if (done[i] == message.bytes)
        continue;
      waits.push_back({group.comm->world->sockets[size_t(group.comm->members[size_t(message.peer)])],
                       short(message.sends ? POLLOUT : POLLIN), 0});
      which.push_back(i);
    }
    if (waits.empty())
      return true;
    if (::poll(waits.data(), waits.size(), 20000) <= 0)
      return false;
    for (size_t w = 0; w < waits.size(); ++w) {
      if (!waits[w].revents)
        continue;
      const Message &message = group.messages[which[w]];
      size_t &at = done[which[w]];
      ssize_t moved = message.sends
                          ? ::send(waits[w].fd, message.at + at, message.bytes - at, MSG_NOSIGNAL | MSG_DONTWAIT)
                          : ::recv(waits[w].fd, message.at + at, message.bytes - at, MSG_DONTWAIT);
      if (moved == 0 || (moved < 0 && errno != EAGAIN && errno != EINTR))
        return false;
      at += size_t(std::max<ssize_t>(moved, 0));
    }
  }
}

/// A function of the emulated driver.
template <typename Function> Function driverFunction(const char *name) {
  static void *library = ::dlopen(std::getenv("HELIX_LIBCUDA"), RTLD_NOW);
  return reinterpret_cast<Function>(::dlsym(library, name));
}

void runGroup(void *data) {
  auto &group = *static_cast<Group *>(data); // a graph runs it again
  std::string wrong = misbehaviour();
  int number = ++group.comm->world->groups;
  if (wrong == "fail:" + std::to_string(number)) {
    group.comm->state = RemoteError;
    return;
  }
  if (wrong == "stall:" + std::to_string(number)) {
    driverFunction<void (*)(int)>("helixEmulatedStall")(1);
    return;
  }
  if (group.comm->state == Success && !exchange(group))
    group.comm->state = RemoteError;
}

std::string socketPath(const NcclUniqueId &id, int rank) { return std::string(id.internal) + std::to_string(rank); }

/// Connects every pair: the higher rank asks the lower.
bool connectAll(World &world, const NcclUniqueId &id, int rank, int ranks) {
  world.sockets.assign(size_t(ranks), -1);
  auto addressOf = [&](int of) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::snprintf(address.sun_path, sizeof(address.sun_path), "%s", socketPath(id, of).c_str());
    return address;
  };
  int server = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un mine = addressOf(rank);
  if (::bind(server, reinterpret_cast<sockaddr *>(&mine), sizeof(mine)) != 0 || ::listen(server, ranks) != 0)
    return false;
  for (int peer = 0; peer < rank; ++peer) {
    sockaddr_un address = addressOf(peer);
    int socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
    for (int i = 0; ::connect(socket, reinterpret_cast<sockaddr *>(&address), sizeof(address)) != 0; ++i) {
      if (i == 2000)
        return false;
      ::usleep(10000);
    }
    if (::send(socket, &rank, sizeof(rank), 0) != ssize_t(sizeof(rank)))
      return false;
    world.sockets[size_t(peer)] = socket;
  }
  for (int left = ranks - 1 - rank; left > 0; --left) {
    pollfd wait{server, POLLIN, 0};
    if (::poll(&wait, 1, 20000) <= 0)
      return false;
    int socket = ::accept(server, nullptr, nullptr), peer = -1;
    if (::recv(socket, &peer, sizeof(peer), MSG_WAITALL) != ssize_t(sizeof(peer)))
      return false;
    world.sockets[size_t(peer)] = socket;
  }
  ::close(server);
  ::unlink(mine.sun_path);
  return true;
}

} // namespace

#define API extern "C" __attribute__((visibility("default"))) int

extern "C" __attribute__((visibility("default"))) const char *ncclGetErrorString(int result) {
  return result == RemoteError ? "remote process exited or there was a network error" : "an emulated error";
}
extern "C" __attribute__((visibility("default"))) const char *ncclGetLastError(ncclComm *) { return ""; }
API ncclGetVersion(int *version) {
  *version = 22800;
  return Success;
}
API ncclGetUniqueId(NcclUniqueId *id) {
  std::snprintf(id->internal, sizeof(id->internal), "/tmp/helix-nccl-%d-%lld-", int(::getpid()),
                static_cast<long long>(std::chrono::steady_clock::now().time_since_epoch().count()));
  return Success;
}
API ncclCommInitRankConfig(ncclComm **out, int ranks, NcclUniqueId id, int rank, NcclConfig *config) {
  log("init " + std::to_string(rank) + " of " + std::to_string(ranks) + (config->blocking ? " blocking" : ""));
  if (config->magic != 0xcafebeef || config->size != sizeof(NcclConfig))
    return InvalidArgument;
  auto *comm = new ncclComm;
  *out = comm;
  comm->world = new World;
  comm->rank = rank;
  for (int i = 0; i < ranks; ++i)
    comm->members.push_back(i);
  comm->state = InProgress;
  if (misbehaviour() == "late")
    return InProgress;
  std::thread([comm, id, ranks, rank] {
    comm->state = connectAll(*comm->world, id, rank, ranks) ? Success : SystemError;
  }).detach();
  return InProgress;
}
API ncclCommSplit(ncclComm *comm, int color, int key, ncclComm **out, NcclConfig *) {
  log("split, color " + std::to_string(color) + ", key " + std::to_string(key));
  // All colors and keys go round among all.
  std::vector<std::pair<int, int>> all(comm->members.size());
  std::pair<int, int> mine{color, key};
  Group group{comm, {}, 0};
  for (size_t p = 0; p < all.size(); ++p) {
    if (int(p) == comm->rank)
      continue;
    group.messages.push_back({true, reinterpret_cast<char *>(&mine), sizeof(mine), int(p)});
    group.messages.push_back({false, reinterpret_cast<char *>(&all[p]), sizeof(mine), int(p)});
  }
  all[size_t(comm->rank)] = mine;
  if (!exchange(group))
    return RemoteError;
  auto *part = new ncclComm;
  part->world = comm->world;
  std::map<int, int> byKey;
  for (size_t p = 0; p < all.size(); ++p)
    if (all[p].first == color)
      byKey[all[p].second] = comm->members[p];
  for (auto [k, member] : byKey) {
    if (k == key)
      part->rank = int(part->members.size());
    part->members.push_back(member);
  }
  *out = part;
  return Success;
}
API ncclCommGetAsyncError(ncclComm *comm, int *state) {
  *state = comm->state;
  return Success;
}
API ncclCommFinalize(ncclComm *) { return Success; }
API ncclCommDestroy(ncclComm *comm) {
  log("destroy");
  (void)comm; // a graph may still name it
  return Success;
}
API ncclCommAbort(ncclComm *comm) {
  log("abort");
  driverFunction<void (*)(int)>("helixEmulatedStall")(0);
  for (int socket : comm->world->sockets)
    if (socket >= 0)
      ::shutdown(socket, SHUT_RDWR);
  return Success;
}
API ncclGroupStart() {
  pending.clear();
  return Success;
}
API ncclSend(const void *at, size_t count, int type, int peer, ncclComm *comm, Stream stream) {
  log("send " + std::to_string(count) + " to " + std::to_string(peer));
  if (type != kNcclInt8 || peer < 0 || size_t(peer) >= comm->members.size() || peer == comm->rank)
    return InvalidArgument;
  pending.push_back({comm, {true, static_cast<char *>(const_cast<void *>(at)), count, peer}});
  pendingStream = stream;
  return Success;
}
API ncclRecv(void *at, size_t count, int type, int peer, ncclComm *comm, Stream stream) {
  log("receive " + std::to_string(count) + " from " + std::to_string(peer));
  if (type != kNcclInt8 || peer < 0 || size_t(peer) >= comm->members.size() || peer == comm->rank)
    return InvalidArgument;
  pending.push_back({comm, {false, static_cast<char *>(at), count, peer}});
  pendingStream = stream;
  return Success;
}
API ncclGroupEnd() {
  log("group of " + std::to_string(pending.size()));
  if (pending.empty())
    return Success;
  ncclComm *comm = pending.front().first;
  auto *group = new Group{comm, {}, 0}; // as long as graphs may run it: the process
  for (auto &[of, message] : pending)
    group->messages.push_back(message);
  static Event last = nullptr; // sockets are shared, so order holds among all communicators
  if (last)
    driverFunction<int (*)(Stream, Event, unsigned)>("cuStreamWaitEvent")(pendingStream, last, 0);
  else
    driverFunction<int (*)(Event *, unsigned)>("cuEventCreate")(&last, 0);
  int result =
      driverFunction<int (*)(Stream, void (*)(void *), void *)>("cuLaunchHostFunc")(pendingStream, runGroup, group);
  driverFunction<int (*)(Event, Stream)>("cuEventRecord")(last, pendingStream);
  return result == 0 ? Success : InvalidArgument;
}
