// Programs as children: what they are given, how they end, and that no way out leaves a child or a
// descriptor.
#include <annulet/hub/process.hpp>

#include "support/blocking_files.hpp"
#include "support/child.hpp"
#include "support/folder.hpp"
#include "support/processes.hpp"

#include <doctest/doctest.h>

#include <cerrno>
#include <csignal>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

using namespace annulet::test;
using namespace std::string_literals;
using annulet::child_stream;
using annulet::hub;
using annulet::process;
using annulet::process_options;
using annulet::spawn;
namespace this_fiber = annulet::this_fiber;

namespace {

process_options shell(const std::string& line) { return {.command = {"sh", "-c", line}}; }

std::string all_of(const annulet::descriptor& from) {
  std::string text;
  for (std::string piece = read_some(from, limit); !piece.empty(); piece = read_some(from, limit)) {
    text += piece;
  }
  return text;
}

// What such a child says on its output.
std::string said_by(process_options options) {
  options.output = child_stream::pipe();
  process child(options);
  std::string text = all_of(child.output());
  CHECK(child.wait(limit).success());
  return text;
}

// Until the pool's thread has taken the status.
bool are_gone() {
  for (int i = 0; i < 10'000 && has_children(); ++i) {
    this_fiber::sleep_for(1ms);
  }
  return !has_children();
}

bool runs(pid_t pid) { return ::kill(pid, 0) == 0; }

}  // namespace

TEST_CASE("a child is fed through one pipe and heard through two, and its end is a value") {
  const hub home;
  process child({.command = {"sh", "-c", "cat; echo bad >&2; exit 3"},
                 .input = child_stream::pipe(),
                 .output = child_stream::pipe(),
                 .errors = child_stream::pipe()});
  CHECK(child.pid() > 0);
  child.input().write_all("good"sv, limit);
  child.input().close();
  CHECK(all_of(child.output()) == "good");
  CHECK(all_of(child.errors()) == "bad\n");
  CHECK(child.wait(limit).code() == 3);
  CHECK(child.wait(0s).code() == 3);  // kept
  CHECK_FALSE(child.kill());
  CHECK_FALSE(has_children());
}

TEST_CASE("a command that does not exist is an error that names it, and leaves nothing") {
  const hub home;
  const folder here;
  std::vector<process_options> wrong;
  wrong.push_back({.command = {"no-such-program", "x"}, .output = child_stream::pipe()});
  wrong.push_back({.command = {"/no/such/program"}});
  const auto before = [&] {
    (void)failure_of([&] { return process(wrong[0]); });  // the pool has its threads
    return open_descriptors();
  }();
  for (const auto& options : wrong) {
    const auto failed = failure_of([&] { return process(options); });
    CHECK(failed.error == ENOENT);
    CHECK(failed.words.find("process(" + options.command[0] + ")") != std::string::npos);
  }
  const auto folder_of = here / "missing";
  const auto nowhere = failure_of([&] { return process({.command = {"true"}, .directory = folder_of}); });
  CHECK(nowhere.error == ENOENT);
  CHECK(nowhere.words.find(folder_of) != std::string::npos);
  CHECK(failure_of([&] { return process({.command = {here.path()}}); }).error == EACCES);
  CHECK_THROWS_AS(process({.command = {}}), std::invalid_argument);
  CHECK_THROWS_AS(process({.command = {"a\0b"s}}), std::invalid_argument);
  CHECK_THROWS_AS(process({.command = {"true"}, .output = child_stream::as_output()}), std::invalid_argument);
  const int closed = unused_number();
  CHECK(failure_of([&] {
          return process({.command = {"true"}, .output = child_stream::of(closed)});
        }).error == EBADF);
  CHECK_FALSE(has_children());
  CHECK(open_descriptors() == before);
}

TEST_CASE("a child has the environment and the directory that it is given, or this process's") {
  const hub home;
  const folder here;
  CHECK(said_by({.command = {"env"}, .environment = {{"A=1", "B=two words"}}}) == "A=1\nB=two words\n");
  ::setenv("ANNULET_OF_THE_TEST", "seen", 1);
  CHECK(said_by(shell("echo $ANNULET_OF_THE_TEST")) == "seen\n");
  auto elsewhere = shell("pwd -P");
  elsewhere.directory = here.path();
  CHECK(said_by(elsewhere) == here.path() + "\n");
}

TEST_CASE("a child has its three streams and no other descriptor, no blocked signal, and SIGPIPE as usual") {
  const hub home;
  const descriptor leaky(require_ok(::open("/dev/null", O_RDONLY), "open"));  // not close-on-exec
  const descriptor high(require_ok(::fcntl(leaky.get(), F_DUPFD, 200), "fcntl"));
  // The listing's own is there while it lists.
  CHECK(said_by({.command = {"sh", "-c", "ls /proc/$$/fd"}}) == "0\n1\n2\n");

  sigset_t some;
  sigset_t before;
  sigemptyset(&some);
  for (const int number : {SIGUSR1, SIGTERM}) {
    sigaddset(&some, number);
  }
  ::pthread_sigmask(SIG_BLOCK, &some, &before);
  const auto pipe_before = std::signal(SIGPIPE, SIG_IGN);
  const auto hang_up_before = std::signal(SIGHUP, SIG_IGN);
  const std::string about = said_by({.command = {"grep", "^Sig[BI]", "/proc/self/status"}});
  std::signal(SIGHUP, hang_up_before);
  std::signal(SIGPIPE, pipe_before);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  const auto of = [&](const char* which) {
    return std::stoull(about.substr(about.find(which) + 8), nullptr, 16) &
           0x7fffffffU;  // beyond: glibc's own
  };
  CHECK(of("SigBlk:") == 0);
  CHECK(of("SigIgn:") == 1U << (SIGHUP - 1));  // what nohup is for stays
}

TEST_CASE("streams may be files, each other's numbers among them, nothing, and the output's") {
  const hub home;
  const descriptor file = make_file();
  process writer({.command = {"sh", "-c", "echo out; echo err >&2"},
                  .input = child_stream::nothing(),
                  .output = child_stream::of(file.get()),
                  .errors = child_stream::as_output()});
  CHECK(writer.wait(limit).success());
  std::array<char, 64> room{};
  CHECK(std::string_view(room.data(), static_cast<std::size_t>(::pread(file.get(), room.data(), 64, 0))) ==
        "out\nerr\n");
  CHECK(said_by({.command = {"cat"}, .input = child_stream::nothing()}).empty());
}

TEST_CASE("streams may change places with this process's, and these may be closed") {
  // Its errors go where our output goes, and its output where our errors go.
  const auto end = annulet_test::in_child([] {
    const hub home;
    const descriptor out = make_file();
    const descriptor err = make_file();
    require_ok(::dup2(out.get(), STDOUT_FILENO), "dup2");
    require_ok(::dup2(err.get(), STDERR_FILENO), "dup2");
    process child({.command = {"sh", "-c", "echo to-out; echo to-err >&2"},
                   .output = child_stream::of(STDERR_FILENO),
                   .errors = child_stream::of(STDOUT_FILENO)});
    std::array<char, 64> got{};
    const auto text = [&](int fd) {
      return std::string(got.data(), static_cast<std::size_t>(::pread(fd, got.data(), got.size(), 0)));
    };
    return child.wait(limit).success() && text(err.get()) == "to-out\n" && text(out.get()) == "to-err\n";
  });
  CHECK(end.exit == 0);

  // Where this process has closed its own, pipes get their numbers, and must not be closed by each other.
  const auto closed = annulet_test::in_child([] {
    for (const int number : {0, 1, 2}) {
      ::close(number);
    }
    const hub home;
    process child({.command = {"sh", "-c", "cat; echo err >&2"},
                   .input = child_stream::pipe(),
                   .output = child_stream::pipe(),
                   .errors = child_stream::pipe()});
    child.input().write_all("in"sv);
    child.input().close();
    return all_of(child.output()) == "in" && all_of(child.errors()) == "err\n" && child.wait(limit).success();
  });
  CHECK(closed.exit == 0);

  // What is given for the output has the number of the input, which is made first.
  const auto overlaid = annulet_test::in_child([] {
    const hub home;
    const descriptor file = make_file();
    ::close(STDIN_FILENO);
    process child({.command = {"echo", "text"},
                   .input = child_stream::nothing(),
                   .output = child_stream::of(file.get())});
    std::array<char, 16> got{};
    return child.wait(limit).success() && ::pread(file.get(), got.data(), got.size(), 0) == 5;
  });
  CHECK(overlaid.exit == 0);
}

TEST_CASE("a wait that is late or killed takes nothing, and any number may wait") {
  const hub home;
  process child({.command = {"sleep", "1000"}});
  CHECK(passes_deadline([&] { return child.wait(0s); }));
  CHECK(passes_deadline([&] { return child.wait(20ms); }));
  auto killed = spawn_parked([&] { (void)child.wait(); });
  killed.kill();
  REQUIRE(killed.join(limit));
  auto first = spawn_parked([&] { return child.wait(); });
  auto second = spawn_parked([&] { return child.wait(); });
  CHECK(child.kill(SIGTERM));
  REQUIRE(first.join(limit));
  REQUIRE(second.join(limit));
  CHECK(first.get().signal() == SIGTERM);
  CHECK(second.get().signal() == SIGTERM);
}

TEST_CASE("a signal reaches what the child has started, where it leads a group, and else the child alone") {
  const hub home;
  for (const auto group : {annulet::child_group::own, annulet::child_group::ours}) {
    CAPTURE(static_cast<int>(group));
    auto options = shell("sleep 1000 & echo $!; wait");
    options.output = child_stream::pipe();
    options.group = group;
    process child(options);
    const pid_t grandchild = std::stoi(read_some(child.output(), limit));
    CHECK((::getpgid(child.pid()) == child.pid()) == (group == annulet::child_group::own));
    CHECK(child.kill());
    CHECK(child.wait(limit).signal() == SIGKILL);
    if (group == annulet::child_group::own) {
      CHECK(all_of(child.output()).empty());  // it held the pipe
    } else {
      CHECK(passes_deadline([&] { return read_some(child.output(), 20ms); }));
      CHECK(runs(grandchild));
      ::kill(grandchild, SIGKILL);
    }
  }
}

TEST_CASE("terminate ends a child that heeds SIGTERM at once, and one that does not after the grace") {
  const hub home;
  process mild({.command = {"sleep", "1000"}});
  CHECK(mild.terminate(1min).signal() == SIGTERM);
  CHECK(mild.terminate(1min).signal() == SIGTERM);

  auto options = shell("trap '' TERM; echo ready; while :; do sleep 1000; done");
  options.output = child_stream::pipe();
  process deaf(options);
  CHECK(read_some(deaf.output(), limit) == "ready\n");
  const auto begin = steady::now();
  CHECK(deaf.terminate(50ms).signal() == SIGKILL);
  CHECK(steady::now() - begin >= 50ms);
  CHECK(all_of(deaf.output()).empty());  // and its sleep is gone
  CHECK_FALSE(has_children());
}

TEST_CASE("a process that is destroyed is ended, and no zombie or descriptor is left") {
  const hub home;
  { const process warm_up({.command = {"true"}}); }
  REQUIRE(are_gone());
  const std::size_t before = open_descriptors();
  {
    const process child({.command = {"sleep", "1000"},
                         .input = child_stream::pipe(),
                         .output = child_stream::pipe(),
                         .errors = child_stream::pipe()});
    CHECK(has_children());
    process moved({.command = {"sleep", "1000"}});
    moved = process({.command = {"sleep", "1000"}});
    CHECK(moved.pid() != 0);
  }
  CHECK(are_gone());
  this_fiber::sleep_for(1ms);
  CHECK(open_descriptors() == before);
}

TEST_CASE("a process that is destroyed with no descriptor or thread to be had is ended all the same") {
  const hub home;
  rlimit usual{};
  require_ok(::getrlimit(RLIMIT_NOFILE, &usual), "getrlimit");
  {
    const process child({.command = {"sleep", "1000"}});
    const rlimit none{0, usual.rlim_max};
    require_ok(::setrlimit(RLIMIT_NOFILE, &none), "setrlimit");
  }
  const bool left = has_children();
  require_ok(::setrlimit(RLIMIT_NOFILE, &usual), "setrlimit");
  CHECK_FALSE(left);
}

TEST_CASE("a hub's end waits for the end of what was destroyed before, and a process may outlive it") {
  std::optional<process> outlives;
  {
    const hub home;
    { const process child({.command = {"sleep", "1000"}}); }
    outlives.emplace(process_options{.command = {"sleep", "1000"}});
  }
  CHECK(has_children());
  CHECK_THROWS_AS(outlives->wait(), annulet::hub_gone);
  CHECK_THROWS_AS(outlives->kill(), annulet::hub_gone);
  outlives.reset();
  CHECK_FALSE(has_children());
}

TEST_CASE("a fiber that is killed with a process in its frame ends it") {
  const hub home;
  auto owner = spawn_parked([] {
    process child({.command = {"sleep", "1000"}});
    (void)child.wait();
  });
  this_fiber::sleep_for(50ms);
  owner.kill();
  REQUIRE(owner.join(limit));
  CHECK(are_gone());
}

TEST_CASE("a process that is released goes on, and is waited for by its number") {
  const hub home;
  pid_t number = 0;
  {
    process child({.command = {"sleep", "1000"}});
    number = child.release();
    CHECK(child.pid() == 0);
    CHECK(failure_of([&] { return child.wait(); }).error == ECHILD);
    CHECK(failure_of([&] { return child.kill(); }).error == ECHILD);
    CHECK(failure_of([&] { return child.release(); }).error == ECHILD);
  }
  CHECK(runs(number));
  ::kill(number, SIGKILL);
  CHECK(annulet::wait_child(number, limit).signal() == SIGKILL);
}

TEST_CASE("starting a child does not stop the thread") {
  const hub home;
  const ticker beside;
  std::vector<annulet::fiber<void>> starters;
  int good = 0;
  for (int i = 0; i < 50; ++i) {
    starters.push_back(spawn([&] { good += process({.command = {"true"}}).wait(limit).success() ? 1 : 0; }));
  }
  for (auto& each : starters) {
    each.get();
  }
  CHECK(good == 50);
  CHECK(beside.longest() < 1s);
  CHECK_FALSE(has_children());
}

TEST_CASE("on a thread without a hub, and where its hub is another's, a process says so") {
  hub home;
  process child({.command = {"sleep", "1000"}});
  std::thread([&] {
    CHECK_THROWS_AS(process({.command = {"true"}}), annulet::no_hub);
    CHECK_THROWS_AS(child.wait(), annulet::wrong_thread);
    CHECK_THROWS_AS(child.kill(), annulet::wrong_thread);
  }).join();
  CHECK(child.terminate(limit - steady::duration(0)).signal() == SIGTERM);
}
