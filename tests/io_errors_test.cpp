// What the fd calls say of what cannot be: the errno of Linux, the call and the descriptor by name; and what
// they never do: raise SIGPIPE, spin, or wait where there is nothing to wait for.
#include <annulet/hub/io.hpp>

#include "support/apart.hpp"
#include "support/cpu_time.hpp"
#include "support/io_calls.hpp"

#include <doctest/doctest.h>

#include <array>
#include <climits>
#include <csignal>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

using namespace annulet::test;
using annulet::const_buffer;
using annulet::file_ref;
using annulet::hub;
using annulet::mutable_buffer;
using annulet::socket_address;
using annulet::spawn;
namespace this_fiber = annulet::this_fiber;

namespace {

struct named_call {
  const char* name;
  std::function<void(file_ref)> make;
};

std::array<char, 16> room{};
socket_address somewhere() { return socket_address(loopback(9)); }
std::array<iovec, 1> one_vector() { return {iovec{room.data(), room.size()}}; }

// Every call of io.hpp; those that only sockets know come last.
const std::vector<named_call>& file_calls() {
  static const std::vector<named_call> all = {
      {"read", [](file_ref f) { (void)annulet::read(f, room, limit); }},
      {"readv", [](file_ref f) { (void)annulet::readv(f, one_vector(), limit); }},
      {"read_exactly", [](file_ref f) { (void)annulet::read_exactly(f, room, limit); }},
      {"read", [](file_ref f) { (void)annulet::try_read(f, room); }},
      {"write", [](file_ref f) { (void)annulet::write(f, "x"sv, limit); }},
      {"writev", [](file_ref f) { (void)annulet::writev(f, one_vector(), limit); }},
      {"write_all", [](file_ref f) { annulet::write_all(f, "x"sv, limit); }},
      {"write", [](file_ref f) { (void)annulet::try_write(f, "x"sv); }},
  };
  return all;
}

const std::vector<named_call>& socket_calls() {
  static const std::vector<named_call> all = {
      {"recv", [](file_ref f) { (void)annulet::recv(f, room, limit); }},
      {"recv", [](file_ref f) { (void)annulet::try_recv(f, room); }},
      {"recvfrom",
       [](file_ref f) {
         socket_address from;
         (void)annulet::recvfrom(f, room, from, {}, limit);
       }},
      {"send", [](file_ref f) { (void)annulet::send(f, "x"sv, limit); }},
      {"send", [](file_ref f) { (void)annulet::try_send(f, "x"sv); }},
      {"sendto", [](file_ref f) { (void)annulet::sendto(f, "x"sv, somewhere(), {}, limit); }},
      {"accept", [](file_ref f) { (void)annulet::accept(f, limit); }},
      {"accept", [](file_ref f) { (void)annulet::try_accept(f); }},
      {"connect", [](file_ref f) { annulet::connect(f, somewhere(), limit); }},
  };
  return all;
}

void all_say(const std::vector<named_call>& calls, file_ref file, int error) {
  for (const named_call& call : calls) {
    CAPTURE(call.name);
    const failure failed = failure_of([&] { return call.make(file), 0; });
    CHECK(failed.error == error);
    CHECK(failed.names(call.name, file.number()));
  }
}

void all_say(file_ref file, int error) {
  all_say(file_calls(), file, error);
  all_say(socket_calls(), file, error);
}

// Throws what the other kind of error is, or nothing.
template <class Error>
void all_throw(file_ref file) {
  for (const auto* calls : {&file_calls(), &socket_calls()}) {
    for (const named_call& call : *calls) {
      CAPTURE(call.name);
      std::string words;
      try {
        call.make(file);
      } catch (const Error& e) {
        words = e.what();
      }
      CHECK(words.find(call.name) != std::string::npos);
    }
  }
}

std::vector<named_call> of(const std::vector<named_call>& calls, std::initializer_list<const char*> names) {
  std::vector<named_call> some;
  for (const named_call& call : calls) {
    for (const std::string name : names) {
      if (name == call.name) {
        some.push_back(call);
      }
    }
  }
  return some;
}

}  // namespace

TEST_CASE("a number that is not open is EBADF, however far from any that is") {
  hub home;
  all_say(unused_number(), EBADF);
  all_say(-1, EBADF);
  all_say(std::numeric_limits<int>::min(), EBADF);
  all_say(std::numeric_limits<int>::max(), EBADF);
}

TEST_CASE("a file that is only a path, or open the other way, is EBADF") {
  in_both_forms([](form way) {
    const subject path(descriptor(require_ok(::open("/tmp", O_PATH | O_CLOEXEC), "open")), way);
    all_say(path, EBADF);
    auto [reader, writer] = make_pipe();
    const subject out(std::move(writer), way), in(std::move(reader), way);
    all_say(of(file_calls(), {"read", "readv", "read_exactly"}), out, EBADF);
    all_say(of(file_calls(), {"write", "writev", "write_all"}), in, EBADF);
  });
}

TEST_CASE("what only sockets know is ENOTSOCK on everything else") {
  in_both_forms([](form way) {
    const subject pipe(make_pipe().reader, way), blocking_pipe(make_blocking_pipe().reader, way),
        file(make_file("text"), way), event(make_eventfd(), way), tty(make_pty().master, way);
    for (const subject* each : {&pipe, &blocking_pipe, &file, &event, &tty}) {
      all_say(socket_calls(), *each, ENOTSOCK);
    }
  });
}

TEST_CASE("a directory is EISDIR to readers, and EBADF to writers") {
  in_both_forms([](form way) {
    const subject folder(descriptor(require_ok(::open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "open")),
                         way);
    all_say(of(file_calls(), {"read", "readv", "read_exactly"}), folder, EISDIR);
    all_say(of(file_calls(), {"write", "writev", "write_all"}), folder, EBADF);
  });
}

TEST_CASE("EINVAL: too little room for an eventfd, too many vectors, a socket that does not listen") {
  in_both_forms([](form way) {
    const subject event(make_eventfd(1), way);
    CHECK(failure_of([&] { return annulet::read(event, mutable_buffer(room.data(), 7), limit); }).error ==
          EINVAL);
    const std::vector<iovec> many(IOV_MAX + 1, iovec{room.data(), 1});
    for (auto make : {+[] { return make_socket_pair().first; }, +[] { return make_tcp_pair().first; },
                      +[] { return make_file("text"); }}) {
      const subject file(make(), way);
      CHECK(failure_of([&] { return annulet::readv(file, many, limit); }).error == EINVAL);
      CHECK(failure_of([&] { return annulet::writev(file, many, limit); }).error == EINVAL);
    }
    for (const int nonblocking : {0, int{SOCK_NONBLOCK}}) {
      const subject idle(
          descriptor(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | nonblocking, 0), "socket")),
          way);
      all_say(of(socket_calls(), {"accept"}), idle, EINVAL);
      all_say(of(socket_calls(), {"recv"}), idle, ENOTCONN);
      all_say(of(socket_calls(), {"send"}), idle, EPIPE);
    }
  });
}

TEST_CASE("an accept says what Linux says of a socket that knows no connections") {
  in_both_forms([](form way) {
    for (const int family : {AF_INET, AF_UNIX}) {
      for (const int nonblocking : {0, int{SOCK_NONBLOCK}}) {
        const subject datagrams(
            descriptor(require_ok(::socket(family, SOCK_DGRAM | SOCK_CLOEXEC | nonblocking, 0), "socket")),
            way);
        all_say(of(socket_calls(), {"accept"}), datagrams, EOPNOTSUPP);
      }
    }
  });
}

TEST_CASE("nothing is transferred to and from nowhere, at once, whether or not the file is ready") {
  in_both_forms([](form way) {
    // As read(2) and write(2): a count of 0 is no reason to wait.
    for (auto make : {+[] { return make_socket_pair(); }, +[] { return make_tcp_pair(); },
                      +[] {
                        auto [master, slave] = make_pty();
                        return socket_pair{std::move(master), std::move(slave)};
                      }}) {
      auto [mine, peer] = make();
      const subject file(std::move(mine), way);
      const auto all_empty = [&] {
        auto calls = spawn([&] {
          return annulet::read(file, mutable_buffer()) + annulet::readv(file, {}) +
                 annulet::read_exactly(file, mutable_buffer()) + annulet::write(file, const_buffer()) +
                 annulet::writev(file, {});
        });
        REQUIRE(calls.join(limit));
        CHECK(calls.get() == 0);
      };
      all_empty();
      CHECK_FALSE(annulet::try_read(file, room));  // known to be empty from here on
      all_empty();
      CHECK(passes_deadline([&] { return annulet::read(file, room, 1ms); }));
      all_empty();
    }
    auto [narrow, reader] = make_socket_pair();
    fill(narrow.get());
    const subject full(std::move(narrow), way);
    CHECK_FALSE(annulet::try_write(full, "x"sv));
    auto call = spawn([&] { return annulet::write(full, const_buffer()); });
    REQUIRE(call.join(limit));
    CHECK(call.get() == 0);
  });
}

TEST_CASE("with MSG_DONTWAIT EAGAIN is said at once, also of a descriptor known to be empty, or waited for") {
  in_both_forms([](form way) {
    auto [mine, peer] = make_tcp_pair();
    const subject file(std::move(mine), way);
    const auto is_refused = [&] {
      auto call = spawn([&] {
        return failure_of([&] { return annulet::recv(file, room, annulet::message_flags(MSG_DONTWAIT)); })
            .error;
      });
      REQUIRE(call.join(limit));
      CHECK(call.get() == EAGAIN);
    };
    is_refused();
    CHECK_FALSE(annulet::try_recv(file, room));
    is_refused();
    CHECK(passes_deadline([&] { return annulet::recv(file, room, 1ms); }));
    is_refused();
    auto waiting = spawn_parked([&] { return annulet::recv(file, room, limit); });
    is_refused();
    send_byte(peer.get());
    CHECK(waiting.get() == 1);
  });
}

TEST_CASE("a deadline in the past looks once, truly") {
  in_both_forms([](form way) {
    auto [mine, peer] = make_tcp_pair();
    const subject file(std::move(mine), way);
    const std::array<annulet::deadline, 3> pasts = {annulet::deadline(0s), annulet::deadline(-1h),
                                                    annulet::deadline(steady::now() - 1h)};
    for (const auto past : pasts) {
      for (int round = 0; round < 3; ++round) {
        CHECK(passes_deadline([&] { return annulet::recv(file, room, past); }));
        write_text(peer.get(), "abc");  // of which the hub has heard nothing
        CHECK(annulet::recv(file, room, past) == 3);
      }
      CHECK(passes_deadline([&] { return annulet::read_exactly(file, room, past); }));
    }
    auto waiting = spawn_parked([&] { return annulet::recv(file, room, limit); });
    write_text(peer.get(), "abc");
    for (const auto past : pasts) {
      CHECK(passes_deadline([&] { return annulet::recv(file, room, past); }));  // others were before
    }
    CHECK(waiting.get() == 3);
    const failure said = failure_of([&] { return annulet::recv(file, room, 0s); });
    CHECK(said.error == ETIMEDOUT);
    CHECK(said.names("recv", file.fileno()));
  });
}

TEST_CASE("a peer that has gone is EPIPE, and SIGPIPE is not raised") {
  // Apart, for its default disposition ends the process.
  const auto writes_to_nobody = [](bool counted) {
    static volatile sig_atomic_t raised = 0;
    ::signal(SIGPIPE, counted ? [](int) { raised = 1; } : SIG_DFL);
    hub home;
    for (const form way : both_forms) {
      for (auto make : {+[] { return make_socket_pair().first; }, +[] { return make_tcp_pair().first; },
                        +[] { return make_pipe().writer; }, +[] { return make_blocking_pipe().writer; },
                        +[] { return blocking(make_socket_pair()).first; }}) {
        const subject file(make(), way);
        for (int again = 0; again < 3; ++again) {
          for (const named_call& call : file_calls()) {
            const int error = failure_of([&] { return call.make(file), 0; }).error;
            if (std::string(call.name).starts_with("write") && again > 0 && error != EPIPE) {
              return 1;
            }
          }
        }
        // Sockets have reported a reset by now; pipes have no send.
        const int sent = failure_of([&] { return annulet::send(file, "x"sv, limit); }).error;
        if (sent != EPIPE && sent != ENOTSOCK) {
          return 2;
        }
      }
    }
    return raised == 0 ? 0 : 3;
  };
  CHECK(run_apart([&] { return writes_to_nobody(false); }) == 0);
  CHECK(run_apart([&] { return writes_to_nobody(true); }) == 0);
}

TEST_CASE("a writer that is parked when its peer goes is told EPIPE, without SIGPIPE") {
  const auto parked = [] {
    ::signal(SIGPIPE, SIG_DFL);
    hub home;
    for (const form way : both_forms) {
      for (const int flags : {O_CLOEXEC, O_CLOEXEC | O_NONBLOCK}) {
        auto [reader, writer] = make_pipe(O_CLOEXEC | O_NONBLOCK);
        fill(writer.get());
        require_ok(::fcntl(writer.get(), F_SETFL, flags & O_NONBLOCK), "fcntl");
        const subject file(std::move(writer), way);
        auto waiting = spawn_parked(
            [&] { return failure_of([&] { return annulet::write(file, "x"sv, limit); }).error; });
        if (waiting.done()) {
          return 1;
        }
        reader.close();
        if (waiting.get() != EPIPE) {
          return 2;
        }
      }
    }
    return 0;
  };
  CHECK(run_apart(parked) == 0);
}

TEST_CASE("SIGPIPE is as blocked and as pending after a call as it was before") {
  const auto looked_at = [] {
    sigset_t pipe_signal, now;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    ::sigprocmask(SIG_BLOCK, &pipe_signal, nullptr);
    hub home;
    const int writer = make_pipe().writer.release();
    const auto pending = [&] {
      ::sigpending(&now);
      return sigismember(&now, SIGPIPE) == 1;
    };
    if (failure_of([&] { return annulet::write(writer, "x"sv); }).error != EPIPE || pending()) {
      return 1;
    }
    ::raise(SIGPIPE);
    if (failure_of([&] { return annulet::write(writer, "x"sv); }).error != EPIPE || !pending()) {
      return 2;
    }
    ::sigprocmask(SIG_BLOCK, nullptr, &now);
    return sigismember(&now, SIGPIPE) == 1 ? 0 : 3;
  };
  CHECK(run_apart(looked_at) == 0);
}

TEST_CASE("what a peer has sent before it half closed is read, then the end, and it can still be answered") {
  in_both_forms([](form way) {
    for (auto make : {+[] { return make_socket_pair(); }, +[] { return make_tcp_pair(); }}) {
      auto [mine, peer] = make();
      const subject file(std::move(mine), way);
      auto waiting = spawn_parked([&] { return annulet::recv(file, room, limit); });
      write_text(peer.get(), "abc");
      ::shutdown(peer.get(), SHUT_WR);
      CHECK(waiting.get() == 3);
      for (int again = 0; again < 3; ++again) {
        CHECK(annulet::recv(file, room, limit) == 0);
      }
      CHECK(annulet::send(file, "answer"sv, limit) == 6);
      CHECK(read_text(peer.get()) == "answer");
      ::shutdown(file.fileno(), SHUT_WR);
      CHECK(failure_of([&] { return annulet::send(file, "x"sv, limit); }).error == EPIPE);
    }
  });
}

TEST_CASE("a shutdown on this side ends the wait of a reader, and of a writer") {
  in_both_forms([](form way) {
    auto [mine, peer] = make_socket_pair();
    fill(mine.get());
    const subject file(std::move(mine), way);
    auto reading = spawn_parked([&] { return annulet::recv(file, room, limit); });
    auto writing =
        spawn_parked([&] { return failure_of([&] { return annulet::send(file, "x"sv, limit); }).error; });
    ::shutdown(file.fileno(), SHUT_RDWR);
    CHECK(reading.get() == 0);
    CHECK(writing.get() == EPIPE);
  });
}

TEST_CASE("a sender to a peer that has half closed and never reads does not spin") {
  in_both_forms([](form way) {
    auto [mine, peer] = make_socket_pair();
    fill(mine.get());
    ::shutdown(peer.get(), SHUT_WR);
    const subject file(std::move(mine), way);
    const auto before = thread_cpu();
    CHECK(passes_deadline([&] { return annulet::send(file, "x"sv, 1s); }));
    CHECK(thread_cpu() - before < 300ms);
  });
}

TEST_CASE("on a thread without a hub each call says no_hub and names itself") {
  const auto pair = make_socket_pair();
  all_throw<annulet::no_hub>(pair.first.get());
  CHECK_THROWS_AS((void)annulet::descriptor::adopt(pair.first.get()), annulet::no_hub);
}
