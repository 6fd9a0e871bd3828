// poll and ppoll, each scene plainly and as a drop-in.

#include "support/connected_pair.hpp"
#include "support/page_before_nothing.hpp"
#include "support/plain_and_parked.hpp"

#include <annulet/hub/close.hpp>

#include <doctest/doctest.h>

#include <array>
#include <chrono>

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

using namespace std::chrono_literals;
using annulet::test::connected_pair;
using annulet::test::descriptor;
using annulet::test::later;
using annulet::test::make_pipe;
using annulet::test::make_socket_pair;
using annulet::test::note_wait;
using annulet::test::page_before_nothing;
using annulet::test::require_ok;
using annulet::test::same_in_both;
using annulet::test::scene_notes;
using annulet::test::send_byte;
using annulet::test::wait_calls;

TEST_CASE("poll says of a closed descriptor POLLNVAL at once, however long it may wait") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    auto pipe = make_pipe();
    const int closed = pipe.reader.get();
    pipe.reader.close();
    std::vector<pollfd> fds{{closed, POLLIN, 0}, {pipe.writer.get(), 0, 0}};
    notes.result("poll", c.poll(fds.data(), 2, -1));
    notes.revents(fds);
  });
}

TEST_CASE("poll finds each of 12 pipes in turn, also by descriptors above 1024") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    std::vector<annulet::test::pipe_pair> pipes(12);
    std::vector<pollfd> fds;
    for (auto& pipe : pipes) {
      pipe = make_pipe();
      const int high = require_ok(::fcntl(pipe.reader.get(), F_DUPFD_CLOEXEC, 2000), "F_DUPFD");
      pipe.reader = descriptor(high);
      fds.push_back({high, POLLIN, 0});
    }
    for (auto& pipe : pipes) {
      const later writes([&] { send_byte(pipe.writer.get()); }, 2ms);
      notes.result("poll", c.poll(fds.data(), fds.size(), -1));
      notes.revents(fds);
      char byte = 0;
      notes.result("read", ::read(pipe.reader.get(), &byte, 1));
    }
  });
}

TEST_CASE("poll hears a child's output and its end") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    auto pipe = make_pipe(O_CLOEXEC);
    const pid_t child = require_ok(::fork(), "fork");
    if (child == 0) {
      ::usleep(5000);
      (void)!::write(pipe.writer.get(), "out", 3);
      ::_exit(0);
    }
    pipe.writer.close();
    std::array<char, 16> bytes{};
    std::vector<pollfd> fds{{pipe.reader.get(), POLLIN, 0}};
    std::string output;
    for (long got = 1; got > 0;) {
      const int found = c.poll(fds.data(), 1, -1);
      REQUIRE(found == 1);
      got = ::read(pipe.reader.get(), bytes.data(), bytes.size());
      output.append(bytes.data(), got > 0 ? static_cast<std::size_t>(got) : 0);
    }
    notes.note(output);
    notes.result("poll at the end", c.poll(fds.data(), 1, -1));
    notes.revents(fds);
    require_ok(::waitpid(child, nullptr, 0), "waitpid");
  });
}

TEST_CASE("the same descriptor may stand in one poll more than once, and negative ones are ignored") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    auto pair = make_socket_pair();
    const int fd = pair.first.get();
    std::vector<pollfd> fds{
        {fd, POLLIN, 7}, {-1, POLLIN, 7}, {fd, POLLPRI, 7}, {fd, POLLIN | POLLRDNORM, 7}, {-7, 0, 7}};
    const later writes([&] { send_byte(pair.second.get()); });
    notes.result("poll", c.poll(fds.data(), fds.size(), 5000));
    notes.revents(fds);
    std::vector<pollfd> none{{-1, POLLIN, 7}, {-2, POLLOUT, 7}};
    note_wait(notes, 5ms, [&] { notes.result("poll of none", c.poll(none.data(), none.size(), 5)); });
    notes.revents(none);
  });
}

TEST_CASE("poll without events yields hang-up, error and invalid") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    auto in = make_pipe();
    auto out = make_pipe();
    std::vector<pollfd> fds{{in.reader.get(), 0, 0}, {out.writer.get(), 0, 0}};
    send_byte(in.writer.get());
    note_wait(notes, 5ms, [&] { notes.result("poll", c.poll(fds.data(), 2, 5)); });
    {
      const later closes([&] { in.writer.close(); });
      notes.result("poll", c.poll(fds.data(), 2, -1));
      notes.revents(fds);
    }
    fds[0].fd = -1;
    const later closes([&] { out.reader.close(); });
    notes.result("poll", c.poll(fds.data(), 2, -1));
    notes.revents(fds);
  });
}

TEST_CASE("a hang-up that poll does not ask about, and that is there all the time, keeps no fiber busy") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    auto [client, server] = connected_pair();
    require_ok(::shutdown(server.get(), SHUT_WR), "shutdown");
    std::vector<pollfd> fds{{client.get(), POLLPRI, 0}};
    note_wait(notes, 20ms, [&] { notes.result("poll", c.poll(fds.data(), 1, 20)); });
    const later sends([&] { require_ok(static_cast<int>(::send(client.get(), "!", 1, 0)), "send"); });
    std::vector<pollfd> peer{{server.get(), POLLIN | POLLRDHUP, 0}};
    notes.result("poll", c.poll(peer.data(), 1, -1));
    notes.revents(peer);
  });
}

TEST_CASE("poll tells of urgent data and of a peer that has half closed") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    auto [client, server] = connected_pair();
    std::vector<pollfd> fds{{server.get(), POLLPRI | POLLRDHUP, 0}};
    note_wait(notes, 0ms, [&] {
      const later sends([&] {
        require_ok(static_cast<int>(::send(client.get(), "in band", 7, 0)), "send");
        std::this_thread::sleep_for(5ms);
        require_ok(static_cast<int>(::send(client.get(), "!", 1, MSG_OOB)), "send");
      });
      notes.result("poll", c.poll(fds.data(), 1, -1));
    });
    notes.revents(fds);
    fds[0].events = POLLRDHUP;
    const later closes([&] { require_ok(::shutdown(client.get(), SHUT_WR), "shutdown"); });
    notes.result("poll", c.poll(fds.data(), 1, -1));
    notes.revents(fds);
  });
}

TEST_CASE("a connection that is refused is writable, with error and hang-up") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    auto listener = annulet::test::make_tcp_listener();
    const sockaddr_in address = annulet::test::loopback(listener.port);
    listener.socket.close();
    const descriptor socket(
        require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket"));
    notes.result("connect",
                 ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)));
    std::vector<pollfd> fds{{socket.get(), POLLOUT | POLLIN, 0}};
    notes.result("poll", c.poll(fds.data(), 1, -1));
    notes.revents(fds);
    int error = 0;
    socklen_t size = sizeof(error);
    ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    notes.note("SO_ERROR", error);
  });
}

TEST_CASE("files that have nothing to wait for are ready, for what they are asked about") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    const descriptor file(require_ok(::open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), "open"));
    const descriptor folder(require_ok(::open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "open"));
    const descriptor null(require_ok(::open("/dev/null", O_RDWR | O_CLOEXEC), "open"));
    std::vector<pollfd> fds{
        {file.get(), POLLIN | POLLOUT, 0}, {folder.get(), POLLIN, 0}, {null.get(), POLLIN | POLLOUT, 0}};
    notes.result("poll", c.poll(fds.data(), fds.size(), -1));
    notes.revents(fds);
    for (pollfd& one : fds) {
      one.events = 0;
    }
    note_wait(notes, 5ms, [&] { notes.result("poll about nothing", c.poll(fds.data(), fds.size(), 5)); });
    for (pollfd& one : fds) {
      one.events = POLLPRI;
    }
    note_wait(notes, 5ms, [&] { notes.result("poll about urgent data", c.poll(fds.data(), fds.size(), 5)); });
    notes.revents(fds);
  });
}

TEST_CASE("poll of nothing sleeps, never too short") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    note_wait(notes, 10ms, [&] { notes.result("poll", c.poll(nullptr, 0, 10)); });
    const timespec some{0, 2'500'000};
    note_wait(notes, 2500us, [&] { notes.result("ppoll", c.ppoll(nullptr, 0, &some, nullptr)); });
    note_wait(notes, 0ms, [&] { notes.result("poll", c.poll(nullptr, 0, 0)); });
  });
}

TEST_CASE("poll refuses what the kernel refuses") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    const page_before_nothing page;
    auto pipe = make_pipe();
    for (const int limit : {0, 5, -1}) {
      rlimit files{};
      ::getrlimit(RLIMIT_NOFILE, &files);
      std::vector<pollfd> many(files.rlim_cur + 1, {-1, 0, 0});
      notes.result("too many", c.poll(many.data(), many.size(), limit));
      notes.result("nowhere", c.poll(nullptr, 1, limit));
      notes.result("at the end of a page", c.poll(static_cast<pollfd*>(page.last(sizeof(pollfd))), 2, limit));
    }
    auto* const last = static_cast<pollfd*>(page.last(sizeof(pollfd)));
    *last = {pipe.reader.get(), POLLIN, 0};
    note_wait(notes, 5ms, [&] { notes.result("the last of a page", c.poll(last, 1, 5)); });
    for (const timespec& bad : {timespec{-1, 0}, timespec{0, -1}, timespec{0, 1'000'000'000}}) {
      notes.result("a bad time", c.ppoll(last, 1, &bad, nullptr));
    }
    const timespec some{0, 1'000'000};
    const timespec none{};
    const auto* const bad_mask = static_cast<const sigset_t*>(page.last(4));
    notes.result("a bad mask", c.ppoll(last, 1, &some, bad_mask));
    notes.result("a bad mask", c.ppoll(last, 1, &none, bad_mask));
    notes.result("a bad mask", c.ppoll(last, 1, nullptr, bad_mask));
  });
}

TEST_CASE("ppoll leaves the time as it was") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    const timespec time{0, 3'000'000};
    note_wait(notes, 3ms, [&] { notes.result("ppoll", c.ppoll(nullptr, 0, &time, nullptr)); });
    notes.note("seconds", time.tv_sec);
    notes.note("nanoseconds", time.tv_nsec);
  });
}

TEST_CASE("poll of 1,000 descriptors, of which one becomes ready") {
  same_in_both([](const wait_calls& c, scene_notes& notes) {
    std::vector<annulet::test::pipe_pair> pipes(1000);
    std::vector<pollfd> fds;
    for (auto& pipe : pipes) {
      pipe = make_pipe();
      fds.push_back({pipe.reader.get(), POLLIN, 0});
    }
    for (const std::size_t which : {0U, 500U, 999U}) {
      const later writes([&] { send_byte(pipes[which].writer.get()); });
      notes.result("poll", c.poll(fds.data(), fds.size(), -1));
      notes.note("revents", fds[which].revents);
      char byte = 0;
      notes.result("read", ::read(fds[which].fd, &byte, 1));
    }
    note_wait(notes, 5ms, [&] { notes.result("poll", c.poll(fds.data(), fds.size(), 5)); });
  });
}

TEST_CASE("a drop-in waits for the fiber, and not for the thread") {
  annulet::hub home;
  auto pipe = make_pipe();
  auto writer = annulet::spawn([&] {
    annulet::this_fiber::sleep_for(5ms);
    send_byte(pipe.writer.get());
  });
  pollfd one{pipe.reader.get(), POLLIN, 0};
  CHECK(annulet_poll(&one, 1, -1) == 1);
  CHECK(one.revents == POLLIN);
  writer.get();
}

TEST_CASE("a descriptor that another fiber closes ends a poll, whoever has its number then") {
  annulet::hub home;
  auto pipe = make_pipe();
  const int fd = pipe.reader.release();
  auto closer = annulet::spawn([&] {
    annulet::close(fd);
    auto other = make_pipe();
    send_byte(other.writer.get());
    require_ok(::dup2(other.reader.get(), fd), "dup2");
  });
  auto quiet = make_pipe();
  std::array<pollfd, 3> fds{pollfd{quiet.reader.get(), POLLIN, 0}, pollfd{-1, 0, 0}, pollfd{fd, POLLIN, 0}};
  CHECK(annulet_poll(fds.data(), fds.size(), -1) == 1);
  CHECK(fds[0].revents == 0);
  CHECK(fds[2].revents == POLLNVAL);
  closer.get();
  ::close(fd);
}
