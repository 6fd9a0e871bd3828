// Bad input, and the ends of what a process may have: each refusal is a clear error that leaves the selector
// as it was, and up to the limit everything works.
#include "support/apart.hpp"
#include "support/descriptor_limit.hpp"
#include "support/selecting.hpp"
#include "support/texts.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/errors.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <sys/resource.h>

using namespace std::chrono_literals;
using namespace annulet::test;
using annulet::hub;
using annulet::io_event;
using annulet::key_error;
using annulet::selector;

namespace {

// A selector with a ready key and one that is not, which have to be the same after each failure.
struct settled {
  settled() {
    write_text(pair.second.get(), "x");
    keys.push_back(sel.register_(pair.first, io_event::read, 1));
    keys.push_back(sel.register_(quiet.first, io_event::read, 2));
    CHECK(look(sel) == ready());
  }
  event_map ready() const { return {{pair.first.get(), io_event::read}}; }

  // Throws this very error, whose text has these words, and nothing has changed.
  template <class Error>
  void refuses(const std::function<void()>& call, const std::string& words) {
    CAPTURE(words);
    std::string what = "nothing was thrown";
    try {
      call();
    } catch (const std::exception& e) {
      what = typeid(e) == typeid(Error) ? e.what() : std::string("another error: ") + e.what();
    }
    CHECK_MESSAGE(what.find(words) != std::string::npos, what);
    CHECK_MESSAGE(what.starts_with("annulet: "), what);
    CHECK(sel.get_map().size() == keys.size());
    for (const auto& key : keys) {
      CHECK(sel.get_key(key->fd) == key);
    }
    CHECK(look(sel) == ready());
  }

  socket_pair pair = make_socket_pair(), quiet = make_socket_pair();
  annulet::basic_selector<int> sel;
  std::vector<annulet::basic_selector<int>::key_type> keys;
};

}  // namespace

TEST_CASE("register refuses what cannot be watched, says why, and leaves the selector as it was") {
  hub home;
  settled s;
  auto& sel = s.sel;
  const socket_pair other = make_socket_pair();
  const int fd = other.first.get();
  using invalid = std::invalid_argument;
  s.refuses<invalid>([&] { sel.register_(fd, io_event::none); }, "not 0");
  s.refuses<invalid>([&] { sel.register_(fd, static_cast<io_event>(12)); }, "not 12");
  s.refuses<invalid>([&] { sel.register_(fd, static_cast<io_event>(7)); }, "not 7");
  s.refuses<invalid>([&] { sel.register_(-1, io_event::read); }, "descriptor -1");
  s.refuses<invalid>([&] { sel.register_(std::numeric_limits<int>::min(), io_event::read); }, "negative");
  s.refuses<invalid>([&] { sel.register_(999'999, io_event::read); }, "999999 is not open");
  s.refuses<invalid>([&] { sel.register_(std::numeric_limits<int>::max(), io_event::read); }, "not open");
  const descriptor path(require_ok(::open("/tmp", O_PATH | O_CLOEXEC), "open"));
  s.refuses<invalid>([&] { sel.register_(path, io_event::read); }, "O_PATH");
  s.refuses<key_error>([&] { sel.register_(s.pair.first, both); }, "registered already");
  s.refuses<key_error>([&] { sel.register_(s.pair.first.get(), both); }, std::to_string(s.pair.first.get()));
}

TEST_CASE(
    "a descriptor closed before register leaves no key behind, and its number can be registered later") {
  hub home;
  settled s;
  socket_pair gone = make_socket_pair();
  const int fd = gone.first.get();
  gone.first.close();
  s.refuses<std::invalid_argument>([&] { s.sel.register_(fd, io_event::read); }, "not open");
  CHECK(!s.sel.get_map().contains(fd));
  const socket_pair fresh = make_socket_pair();
  REQUIRE(fresh.first.get() == fd);
  s.sel.register_(fd, io_event::write);
  CHECK(look(s.sel).at(fd) == io_event::write);
}

TEST_CASE("modify, unregister and get_key refuse what is not registered, and leave the selector as it was") {
  hub home;
  settled s;
  auto& sel = s.sel;
  const socket_pair other = make_socket_pair();
  const int registered = s.pair.first.get();
  using invalid = std::invalid_argument;
  s.refuses<invalid>([&] { sel.modify(registered, io_event::none); }, "not 0");
  s.refuses<invalid>([&] { sel.modify(registered, static_cast<io_event>(5)); }, "not 5");
  s.refuses<key_error>([&] { sel.modify(other.first, io_event::read); }, "not registered");
  s.refuses<key_error>([&] { sel.modify(std::numeric_limits<int>::max(), io_event::read); },
                       "not registered");
  s.refuses<invalid>([&] { sel.modify(-1, io_event::read); }, "negative");
  s.refuses<key_error>([&] { sel.unregister(other.first); }, "not registered");
  s.refuses<invalid>([&] { sel.unregister(-1); }, "negative");
  s.refuses<key_error>([&] { (void)sel.get_key(other.first); }, "not registered");
  s.refuses<invalid>([&] { (void)sel.get_key(-7); }, "negative");
  s.refuses<key_error>([&] { (void)sel.get_map()[other.first.get()]; }, "not registered");
  const std::vector<int> some{registered, other.first.get()}, twice{registered, registered};
  s.refuses<key_error>([&] { sel.unregister_all(some); }, "not registered");
  s.refuses<key_error>([&] { sel.unregister_all(twice); }, "twice");
}

TEST_CASE("a modify of a descriptor that was closed behind the hub's back does not ask the kernel") {
  hub home;
  settled s;
  const int fd = s.quiet.first.release();
  ::close(fd);
  const auto key = s.sel.modify(fd, both, 3);
  CHECK(s.sel.get_key(fd) == key);
  CHECK(look(s.sel).at(fd) == both);  // as poll(2) says it: POLLNVAL
  CHECK(s.sel.unregister(fd) == key);
}

TEST_CASE("a timeout that is not a number is refused, and one beyond all clocks is for ever or past") {
  hub home;
  settled s;
  using seconds = std::chrono::duration<double>;
  using limits = std::numeric_limits<double>;
  s.refuses<std::invalid_argument>([&] { (void)s.sel.select(seconds(limits::quiet_NaN())); }, "NaN");
  drain(s.pair.first.get());
  CHECK(s.sel.select(seconds(-limits::infinity())).empty());
  CHECK(s.sel.select(seconds(-1e300)).empty());
  CHECK(s.sel.select(std::chrono::hours::min()).empty());
  CHECK(s.sel.select(steady::time_point::min()).empty());
  for (const annulet::deadline until :
       {annulet::deadline(seconds(limits::infinity())), annulet::deadline(seconds(1e300)),
        annulet::deadline(std::chrono::hours::max()), annulet::deadline(std::chrono::nanoseconds::max()),
        annulet::deadline(steady::time_point::max()), annulet::deadline(std::chrono::years(250))}) {
    auto fiber = park_in_select(s.sel, until);
    CHECK(!fiber.join(3ms));
    write_text(s.pair.second.get(), "x");
    CHECK(fiber.join(limit));
    CHECK(fiber.get() == s.ready());
    drain(s.pair.first.get());
  }
}

TEST_CASE("a selector used from another thread says so, and is left as it was") {
  hub home;
  settled s;
  auto& sel = s.sel;
  const socket_pair other = make_socket_pair();
  const auto map = sel.get_map();
  const std::vector<std::function<void()>> calls = {
      [&] { sel.register_(other.first, io_event::read); },
      [&] { sel.modify(s.pair.first, io_event::write); },
      [&] { sel.unregister(s.pair.first); },
      [&] { sel.unregister_all(std::vector<int>{s.pair.first.get()}); },
      [&] { (void)sel.get_key(s.pair.first); },
      [&] { (void)sel.select(0s); },
      [&] { (void)sel.select(); },
      [&] { sel.close(); },
      [&] { (void)map.size(); },
      [&] { (void)map.contains(s.pair.first); },
      [&] { annulet::selector another(home); },
  };
  for (const bool with_a_hub : {false, true}) {
    for (std::size_t i = 0; i < calls.size(); ++i) {
      CAPTURE(with_a_hub);
      CAPTURE(i);
      const auto elsewhere = [&] {
        std::exception_ptr error;
        std::thread([&] {
          const auto theirs = with_a_hub ? std::make_unique<hub>() : nullptr;
          try {
            calls[i]();
          } catch (...) {
            error = std::current_exception();
          }
        }).join();
        if (error != nullptr) {
          std::rethrow_exception(error);
        }
      };
      s.refuses<annulet::wrong_thread>(elsewhere, "thread");
    }
  }
}

TEST_CASE("a selector needs a hub, and says so once its hub has ended") {
  CHECK_THROWS_AS(selector(), annulet::no_hub);
  auto home = std::make_unique<hub>();
  settled s;
  selector closed;
  closed.close();
  auto& sel = s.sel;
  const auto map = sel.get_map();
  home.reset();
  for (const bool with_another : {false, true}) {
    CAPTURE(with_another);
    const auto another = with_another ? std::make_unique<hub>() : nullptr;
    const auto says_so = [](auto&& call) {
      CHECK_THROWS_WITH_AS(call(), doctest::Contains("has ended"), annulet::hub_gone);
    };
    says_so([&] { sel.register_(s.pair.second, io_event::read); });
    says_so([&] { sel.modify(s.pair.first, both); });
    says_so([&] { sel.unregister(s.pair.first); });
    says_so([&] { sel.unregister_all(std::vector<int>{s.pair.first.get()}); });
    says_so([&] { (void)sel.get_key(s.pair.first); });
    says_so([&] { (void)sel.select(0s); });
    says_so([&] { (void)sel.select(); });
    says_so([&] { (void)map.size(); });
    says_so([&] { (void)map[s.pair.first]; });
    CHECK(closed.get_map().empty());
  }
  sel.close();
  CHECK(map.empty());
  CHECK(sel.get_map().begin() == sel.get_map().end());
}

namespace {

std::vector<socket_pair> pairs_up_to_the_limit() {
  const rlim_t most = allow_descriptors(20'000);
  std::vector<socket_pair> pairs((most - open_descriptors() - 50) / 2);
  std::generate(pairs.begin(), pairs.end(), [] { return make_socket_pair(); });
  return pairs;
}

}  // namespace

TEST_CASE("with as many descriptors as the process may have, one select reports every one that is ready") {
  CHECK(run_apart([] {
          hub home;
          selector sel;
          const auto pairs = pairs_up_to_the_limit();
          event_map expected;
          for (const auto& [reader, writer] : pairs) {
            send_byte(writer.get());
            sel.register_(reader, io_event::read);
            sel.register_(writer, io_event::write);
            expected[reader.get()] = io_event::read;
            expected[writer.get()] = io_event::write;
          }
          std::printf("note: %zu ready descriptors\n", expected.size());
          const bool first = as_map(sel.select()) == expected;
          const bool second = as_map(sel.select()) == expected;
          return (first ? 0 : 1) + (second ? 0 : 2);
        }) == 0);
}

TEST_CASE("one select reports every one of thousands that became ready since the last") {
  for (const auto wait : {0ms, 5ms}) {
    CAPTURE(wait.count());
    CHECK(run_apart([&] {
            hub home;
            selector sel;
            const auto pairs = pairs_up_to_the_limit();
            event_map expected;
            for (const auto& [reader, writer] : pairs) {
              sel.register_(reader, io_event::read);
              expected[reader.get()] = io_event::read;
            }
            if (!look(sel).empty()) {
              return 1;
            }
            for (const auto& [reader, writer] : pairs) {
              send_byte(writer.get());
            }
            annulet::this_fiber::sleep_for(wait);
            const std::size_t found = as_map(sel.select()).size();
            if (found != expected.size()) {
              std::printf("note: %zu of %zu reported\n", found, expected.size());
              return 2;
            }
            for (const auto& [reader, writer] : pairs) {
              drain(reader.get());
            }
            return look(sel).empty() ? 0 : 3;
          }) == 0);
  }
}

TEST_CASE("the smallest rings lose no event") {
  hub home(annulet::hub_options{.sq_entries = 1, .cq_entries = 2});
  selector sel;
  std::vector<socket_pair> pairs(300);
  std::generate(pairs.begin(), pairs.end(), [] { return make_socket_pair(); });
  for (const auto& pair : pairs) {
    sel.register_(pair.first.get(), io_event::read);
  }
  CHECK(look(sel).empty());
  for (std::size_t round = 1; round <= 30; ++round) {
    auto fiber = park_in_select(sel);
    event_map expected;
    for (std::size_t i = round % 7; i < pairs.size(); i += round) {
      send_byte(pairs[i].second.get());
      expected.emplace(pairs[i].first.get(), io_event::read);
    }
    REQUIRE(fiber.join(limit));
    const bool all = fiber.get() == expected;
    REQUIRE(all);
    for (const auto& [fd, events] : expected) {
      drain(fd);
    }
    if (round % 2 == 0) {
      REQUIRE(look(sel).empty());
    }
  }
}

TEST_CASE("numbers above 1024 and up to the limit are numbers like others") {
  CHECK(run_apart([] {
          const int most = static_cast<int>(allow_descriptors(20'000));
          hub home;
          selector sel;
          for (const int number : {1023, 1024, 1025, 4097, most - 1}) {
            socket_pair pair = make_socket_pair();
            if (number >= most || ::dup2(pair.first.get(), number) != number) {
              return 1;
            }
            pair.first = descriptor(number);
            sel.register_(number, io_event::read);
            auto fiber = park_in_select(sel);
            send_byte(pair.second.get());
            if (!fiber.join(limit) || fiber.get() != event_map{{number, io_event::read}}) {
              return 2;
            }
            sel.unregister(number);
          }
          return 0;
        }) == 0);
}

TEST_CASE("a process that has used up its descriptors can make, use and close selectors") {
  CHECK(run_apart([] {
          hub home;
          const socket_pair pair = make_socket_pair();
          allow_descriptors(static_cast<rlim_t>(pair.second.get()) + 1);
          while (::dup(0) >= 0) {
          }
          selector sel;
          sel.register_(pair.first, io_event::read);
          auto fiber = park_in_select(sel);
          sel.modify(pair.first, both);
          if (fiber.get() != event_map{{pair.first.get(), io_event::write}}) {
            return 1;
          }
          sel.unregister(pair.first);
          sel.close();
          return 0;
        }) == 0);
}

TEST_CASE("more descriptors registered than the process may still ask poll about at once are all reported") {
  CHECK(run_apart([] {
          hub home;
          selector sel;
          std::vector<socket_pair> pairs(100);
          std::generate(pairs.begin(), pairs.end(), [] { return make_socket_pair(); });
          for (const auto& pair : pairs) {
            sel.register_(pair.first, io_event::write);
          }
          allow_descriptors(7);
          return sel.select().size() == pairs.size() && look(sel).size() == pairs.size() ? 0 : 1;
        }) == 0);
}
