// annulet_getaddrinfo, with a getaddrinfo of our own behind it, which answers when it is told to.
#include <annulet/selector/posix.h>
#include <annulet/hub/hub.hpp>
#include <annulet/hub/offload.hpp>
#include <annulet/runtime/cancellation.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include "support/apart.hpp"
#include "support/cancelled.hpp"
#include "support/files.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <netdb.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace std::chrono_literals;

namespace {

constexpr std::size_t most = 64;

// What the server of names does, and what it has been asked.
class name_server {
 public:
  int answer(const char* node, const addrinfo* hints, addrinfo** found) {
    if (hints != nullptr && (hints->ai_flags & AI_NUMERICHOST) != 0 && std::strcmp(node, "127.0.0.1") != 0) {
      return EAI_NONAME;
    }
    if (std::strcmp(node, "127.0.0.1") == 0) {
      *found = new addrinfo{};
      return 0;
    }
    std::unique_lock lock(mutex_);
    asked_.emplace_back(node);
    ++asking_;
    most_asking_ = std::max(most_asking_, asking_);
    sigset_t blocked;
    pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
    all_blocked_ = all_blocked_ && sigismember(&blocked, SIGTERM) != 0 && sigismember(&blocked, SIGALRM) != 0;
    changed_.notify_all();
    changed_.wait(lock, [&] { return !holds_; });
    --asking_;
    if (std::strcmp(node, "unknown") == 0) {
      return EAI_NONAME;
    }
    if (std::strcmp(node, "broken") == 0) {
      errno = EIO;
      return EAI_SYSTEM;
    }
    *found = new addrinfo{};
    (*found)->ai_socktype = hints == nullptr ? 0 : hints->ai_socktype;
    return 0;
  }
  void free(addrinfo* answer) {
    delete answer;
    const std::lock_guard lock(mutex_);
    ++freed_;
    changed_.notify_all();
  }

  void hold() {
    const std::lock_guard lock(mutex_);
    holds_ = true;
    asked_.clear();
    freed_ = most_asking_ = 0;
    all_blocked_ = true;
  }
  void let_go() {
    const std::lock_guard lock(mutex_);
    holds_ = false;
    changed_.notify_all();
  }
  // Blocks the thread.
  void wait_until_asked(std::size_t times) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return asked_.size() >= times; });
  }
  [[nodiscard]] bool frees(std::size_t times) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 5s, [&] { return freed_ == times; });
  }
  [[nodiscard]] std::size_t freed() {
    const std::lock_guard lock(mutex_);
    return freed_;
  }
  [[nodiscard]] std::vector<std::string> asked() {
    const std::lock_guard lock(mutex_);
    return asked_;
  }
  [[nodiscard]] std::size_t most_asking() {
    const std::lock_guard lock(mutex_);
    return most_asking_;
  }
  [[nodiscard]] bool all_blocked() {
    const std::lock_guard lock(mutex_);
    return all_blocked_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> asked_;
  std::size_t asking_ = 0;
  std::size_t most_asking_ = 0;
  std::size_t freed_ = 0;
  bool holds_ = false;
  bool all_blocked_ = true;
};

name_server server;

int resolved(const std::string& node) {
  addrinfo* found = nullptr;
  const int result = annulet_getaddrinfo(node.c_str(), "80", nullptr, &found);
  if (result == 0) {
    ::freeaddrinfo(found);
  }
  return result;
}

}  // namespace

// Before libc's.
extern "C" int getaddrinfo(const char* node, const char* service, const addrinfo* hints, addrinfo** found) {
  return std::strcmp(service, "80") == 0 ? server.answer(node, hints, found) : EAI_SERVICE;
}
extern "C" void freeaddrinfo(addrinfo* answer) noexcept { server.free(answer); }

// The first of all: the stacks of threads that have ended would serve new ones, whatever the limit.
TEST_CASE("where no thread is to be had it is to be tried again, and who does so for ever lets others run") {
  CHECK(annulet::test::run_apart([] {
          server.hold();
          annulet::hub home;
          rlimit before{};
          ::getrlimit(RLIMIT_AS, &before);
          const rlimit none{1, before.rlim_max};
          bool goes_on = true;
          auto first = annulet::spawn([] { return resolved("first"); });
          annulet::this_fiber::yield();
          server.wait_until_asked(1);
          auto last = annulet::spawn([&] { goes_on = false; });
          ::setrlimit(RLIMIT_AS, &none);
          bool always_said = true;
          while (goes_on) {
            const int result = resolved("second");
            always_said = always_said && (result == EAI_AGAIN || result == EAI_MEMORY);
          }
          ::setrlimit(RLIMIT_AS, &before);
          server.let_go();
          return always_said && first.get() == 0 && resolved("third") == 0 && server.most_asking() == 1 ? 0
                                                                                                        : 1;
        }) == 0);
}

TEST_CASE("what the call gives comes back, and others run meanwhile") {
  server.hold();
  annulet::hub home;
  std::optional<int> known;
  int type = 0;
  auto asking = annulet::spawn([&] {
    addrinfo* found = nullptr;
    {
      addrinfo hints{};
      hints.ai_socktype = 7;
      known = annulet_getaddrinfo("known", "80", &hints, &found);
    }
    type = found->ai_socktype;
    ::freeaddrinfo(found);
  });
  annulet::this_fiber::yield();
  server.wait_until_asked(1);
  CHECK(!known);
  auto others = annulet::spawn([] { return resolved("unknown"); });
  int error = 0;
  auto broken = annulet::spawn([&error] {
    const int result = resolved("broken");
    error = errno;
    return result;
  });
  annulet::this_fiber::sleep_for(1ms);
  server.wait_until_asked(3);
  server.let_go();
  asking.join();
  CHECK(known == 0);
  CHECK(type == 7);
  CHECK(others.get() == EAI_NONAME);
  CHECK(broken.get() == EAI_SYSTEM);
  CHECK(error == EIO);
  CHECK(server.all_blocked());
  CHECK(server.frees(1));
}

TEST_CASE("without a hub it is the plain call") {
  server.hold();
  server.let_go();
  CHECK(resolved("known") == 0);
  CHECK(!server.all_blocked());
}

TEST_CASE("who is killed, or late, leaves at once, and stays so") {
  for (const bool late : {false, true}) {
    CAPTURE(late);
    server.hold();
    annulet::hub home;
    std::vector<int> results;
    bool thrown = false;
    auto asking = annulet::spawn([&] {
      const auto ask = [&] {
        for (int i = 0; i < 2; ++i) {
          results.push_back(resolved("known"));
          results.push_back(errno);
        }
      };
      if (late) {
        try {
          const annulet::timeout soon(5ms);
          ask();
          annulet::this_fiber::sleep_for(1s);
        } catch (const annulet::timeout_expired&) {
          thrown = true;
        }
      } else {
        thrown = annulet_test::killed_in([&] {
          ask();
          annulet::this_fiber::sleep_for(1s);
        });
      }
    });
    annulet::this_fiber::yield();
    server.wait_until_asked(1);
    if (!late) {
      asking.kill();
    }
    asking.join();
    CHECK(results == std::vector<int>{EAI_SYSTEM, ECANCELED, EAI_SYSTEM, ECANCELED});
    CHECK(thrown);
    CHECK(server.asked().size() == 1);
    CHECK(server.freed() == 0);
    server.let_go();
    CHECK(server.frees(1));
  }
}

TEST_CASE("a number needs nobody to be asked, whoever else waits, and whoever is killed") {
  server.hold();
  annulet::hub home;
  auto asking = annulet::spawn([] {
    CHECK(resolved("held") == EAI_SYSTEM);
    CHECK(resolved("127.0.0.1") == 0);
  });
  annulet::this_fiber::yield();
  server.wait_until_asked(1);
  CHECK(resolved("127.0.0.1") == 0);
  asking.kill();
  asking.join();
  CHECK(server.asked().size() == 1);
  server.let_go();
  CHECK(server.frees(3));
}

TEST_CASE("a hub's end does not wait for names, nor do they for it") {
  server.hold();
  const std::size_t open = annulet::test::open_descriptors();
  {
    annulet::hub home({.shutdown_limit = 2s});  // and then it would end the process
    for (int i = 0; i < 3; ++i) {
      annulet::spawn([] { (void)resolved("known"); }).detach();
    }
    annulet::this_fiber::yield();
    server.wait_until_asked(3);
  }
  CHECK(annulet::test::open_descriptors() == open);
  server.let_go();
  CHECK(server.frees(3));
}

TEST_CASE("those that nobody waits for any more hold up nobody") {
  server.hold();
  annulet::hub home;
  std::vector<annulet::fiber<int>> all;
  for (std::size_t i = 0; i < most; ++i) {
    all.push_back(annulet::spawn([] { return resolved("held"); }));
  }
  annulet::this_fiber::yield();
  server.wait_until_asked(most);
  auto next = annulet::spawn([] { return resolved("next"); });
  annulet::this_fiber::yield();
  for (auto& one : all) {
    one.kill();
    one.join();
  }
  server.wait_until_asked(most + 1);
  CHECK(server.asked().back() == "next");
  server.let_go();
  CHECK(next.get() == 0);
  CHECK(server.frees(most + 1));
}

TEST_CASE("there are no more threads than that, however many resolutions nobody waits for") {
  constexpr std::size_t most_threads = 4 * most;
  server.hold();
  annulet::hub home;
  for (std::size_t begun = 0; begun < most_threads; begun += most) {
    std::vector<annulet::fiber<int>> all;
    for (std::size_t i = 0; i < most; ++i) {
      all.push_back(annulet::spawn([] { return resolved("held"); }));
    }
    annulet::this_fiber::yield();
    server.wait_until_asked(begun + most);
    for (auto& one : all) {
      one.kill();
      one.join();
    }
  }
  auto late = annulet::spawn([] {
    const int result = resolved("late");
    return result == EAI_SYSTEM && errno == ECANCELED;
  });
  auto next = annulet::spawn([] { return resolved("next"); });
  annulet::this_fiber::sleep_for(5ms);
  late.kill();
  CHECK(late.get());
  CHECK_FALSE(next.done());
  server.let_go();
  CHECK(next.get() == 0);
  CHECK(server.most_asking() == most_threads);
  CHECK(server.asked().size() == most_threads + 1);
  CHECK(server.frees(most_threads + 1));
}

TEST_CASE("a child that is forked meanwhile resolves by a hub of its own") {
  server.hold();
  annulet::hub home;
  auto asking = annulet::spawn([] { return resolved("known"); });
  annulet::this_fiber::yield();
  server.wait_until_asked(1);
  const pid_t child = ::fork();
  if (child == 0) {
    server.let_go();
    if (resolved("plainly") != 0) {
      ::_exit(1);
    }
    const annulet::hub its;
    auto inside = annulet::spawn([] { return resolved("child's"); });
    ::_exit(inside.get() == 0 && server.freed() == 2 ? 0 : 2);
  }
  int status = -1;
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  server.let_go();
  CHECK(asking.get() == 0);
  CHECK(server.frees(1));
}

TEST_CASE("so many at once and no more, then the others, and none that was killed before") {
  server.hold();
  annulet::hub home;
  std::vector<annulet::fiber<int>> all;
  for (std::size_t i = 0; i < 3 * most; ++i) {
    all.push_back(annulet::spawn([i] { return resolved(std::to_string(i)); }));
  }
  annulet::this_fiber::yield();
  server.wait_until_asked(most);
  for (std::size_t i = most; i < 2 * most; ++i) {
    all[i].kill();
    all[i].join();
  }
  // Nor is anything else held up.
  CHECK(annulet::offload([] { return 5; }) == 5);
  server.let_go();
  for (std::size_t i = 0; i < 3 * most; ++i) {
    CAPTURE(i);
    if (i < most || i >= 2 * most) {
      CHECK(all[i].get() == 0);
    }
  }
  CHECK(server.most_asking() == most);
  const auto asked = server.asked();
  CHECK(asked.size() == 2 * most);
  const auto is_killed = [](const std::string& name) {
    const auto number = static_cast<std::size_t>(std::stoul(name));
    return number >= most && number < 2 * most;
  };
  CHECK(std::none_of(asked.begin(), asked.end(), is_killed));
  CHECK(server.frees(2 * most));
}
