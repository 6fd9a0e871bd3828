// Selects allocate nothing, and a call that is refused memory has changed nothing.
#include "support/apart.hpp"
#include "support/selecting.hpp"
#include "support/texts.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using namespace annulet::test;
using annulet::hub;
using annulet::io_event;
using annulet::selector;

namespace {

std::size_t allocations = 0;
std::size_t refuse_from = 0;  // 0: none; n: the n-th from now
std::size_t refuse_until = 0;

bool refused() noexcept {
  ++allocations;
  if (refuse_from > 1) {
    --refuse_from, --refuse_until;
    return false;
  }
  if (refuse_from == 1 && refuse_until > 0) {
    if (--refuse_until == 0) {
      refuse_from = 0;
    }
    return true;
  }
  return false;
}

}  // namespace

[[gnu::noinline]] void* operator new(std::size_t size) {
  void* const memory = refused() ? nullptr : std::malloc(size);
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
  return memory;
}
[[gnu::noinline]] void* operator new(std::size_t size, std::align_val_t alignment) {
  const auto step = static_cast<std::size_t>(alignment);
  void* const memory = refused() ? nullptr : std::aligned_alloc(step, (size + step - 1) / step * step);
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}

namespace {

// Has the n-th allocation from here fail, and so many after it. True where the call met none of them.
template <class Call>
bool passes_with_refusal(std::size_t n, std::size_t many, Call&& call) {
  refuse_from = n;
  refuse_until = n + many - 1;
  bool passed = true;
  try {
    std::forward<Call>(call)();
  } catch (const std::bad_alloc&) {
    passed = false;
  }
  refuse_from = refuse_until = 0;
  return passed;
}

struct large {
  explicit large(int n) { values[0] = n; }
  large(large&&) = default;
  large& operator=(large&&) = default;
  std::array<int, 16> values{};
};
static_assert(sizeof(large) == 64);

}  // namespace

TEST_CASE("selects allocate nothing, whatever they find") {
  hub home;
  annulet::basic_selector<large> sel;
  std::array<socket_pair, 50> pairs;
  for (auto& pair : pairs) {
    pair = make_socket_pair();
    sel.register_(pair.first, io_event::read, large(1));
  }
  annulet::event go;
  std::size_t next = 0;
  auto writer = annulet::spawn([&] {
    for (;;) {
      go.wait();
      go.clear();
      send_byte(pairs[next].second.get());
    }
  });
  std::vector<annulet::basic_selector<large>::ready_type> out;
  std::size_t before = 0, found = 0;
  for (std::size_t i = 0; i < 10'000; ++i) {
    if (i == 500) {
      before = allocations, found = 0;
    }
    next = i % pairs.size();
    switch (i % 5) {
      case 0:  // nothing there
        found += sel.select(out, 0s);
        break;
      case 1:  // at once
        send_byte(pairs[next].second.get());
        found += sel.select(out);
        break;
      case 2:  // after a park
        go.set();
        found += sel.select(out);
        break;
      case 3:  // many
        for (std::size_t j = 0; j < 10; ++j) {
          send_byte(pairs[(i + j) % pairs.size()].second.get());
        }
        found += sel.select(out);
        break;
      default:
        found += sel.select(out, 20us);
    }
    for (const auto& [key, events] : out) {
      (void)try_read(key->fd);
    }
  }
  CHECK(allocations - before == 0);
  writer.kill();
  writer.join();
  CHECK(found == 9'500 / 5 * 12);
}

TEST_CASE("a call that is refused memory changes nothing, and works when there is some again") {
  hub home;
  std::array<socket_pair, 100> pairs;
  std::generate(pairs.begin(), pairs.end(), [] { return make_socket_pair(); });
  std::vector<int> fds;
  selector sel;
  const auto until_it_passes = [&](auto&& call) {
    std::size_t n = 1;
    for (const std::size_t size = sel.get_map().size(); !passes_with_refusal(n, 1, call); ++n) {
      REQUIRE(n < 100);
      REQUIRE(sel.get_map().size() == size);
      REQUIRE(look(sel).size() == size);
    }
    return n;
  };
  for (const auto& pair : pairs) {
    fds.push_back(pair.first.get());
    CHECK(until_it_passes([&] { sel.register_(fds.back(), io_event::write, fds.size()); }) > 1);
  }
  until_it_passes([&] { (void)sel.select(0s); });
  for (const int fd : fds) {
    until_it_passes([&] { sel.modify(fd, both, fd); });
  }
  until_it_passes([&] { CHECK(sel.get_map()[fds[3]] == sel.get_key(fds[3])); });
  CHECK(until_it_passes([&] { sel.unregister(fds[0]); }) == 1);
  until_it_passes([&] { sel.unregister_all(std::vector<int>(fds.begin() + 1, fds.begin() + 50)); });
  CHECK(sel.get_map().size() == 50);
  std::unique_ptr<selector> made;
  CHECK(until_it_passes([&] { made = std::make_unique<selector>(); }) > 1);
  CHECK(passes_with_refusal(1, 1'000'000, [&] { sel.close(); }));
  CHECK(sel.get_map().empty());
}

TEST_CASE("what was refused memory once can be refused it again") {
  const auto twice = [](std::size_t first, std::size_t second) {
    return run_apart([&] {
      hub home;
      selector sel;
      const socket_pair pair = make_socket_pair();
      std::vector<selector::ready_type> out;
      out.reserve(8);
      const auto add = [&](const descriptor& d) { sel.register_(d, io_event::write); };
      if (passes_with_refusal(first, 1, [&] { add(pair.first); })) {
        return 1;
      }
      (void)passes_with_refusal(second, 1'000'000, [&] { add(pair.second); });
      const std::size_t size = sel.get_map().size();
      const bool found = passes_with_refusal(1, 1'000'000, [&] { sel.select(out, 0s); });
      return found && out.size() == size ? 0 : 2;
    });
  };
  std::size_t first = 1;
  for (int status = 0; status != 1; ++first) {
    REQUIRE(first < 50);
    for (std::size_t second = 1; second < 20 && status != 1; ++second) {
      CAPTURE(first);
      CAPTURE(second);
      status = twice(first, second);
      CHECK(status <= 1);
    }
  }
  CHECK(first > 5);
}
