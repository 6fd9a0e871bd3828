#include <annulet/runtime/stack.hpp>

#include <annulet/runtime/fiber.hpp>

#include "support/child.hpp"
#include "support/driven_clock.hpp"
#include "support/own_memory.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iostream>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

using annulet::largest_stack_size;
using annulet::smallest_stack_size;
using annulet::stack_guard;
using annulet::detail::stack;
using annulet::detail::stack_pool;
using annulet_test::child_end;
using annulet_test::in_child;
using annulet_test::mappings;
using annulet_test::page;
using annulet_test::resident_bytes;

namespace {

bool kernel_installs_guards() {
  constexpr int madv_guard_install = 102;
  void* const memory = ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const bool does = ::madvise(memory, page, madv_guard_install) == 0;
  ::munmap(memory, page);
  return does;
}

bool is_mapped(const std::byte* at) {
  unsigned char there = 0;
  const auto start = reinterpret_cast<std::uintptr_t>(at) / page * page;
  return ::mincore(reinterpret_cast<void*>(start), 1, &there) == 0;
}

void touch(std::byte* at) { *static_cast<volatile std::byte*>(at) = std::byte{1}; }

std::vector<stack> acquire(stack_pool& pool, std::size_t count, std::size_t size) {
  std::vector<stack> all;
  all.reserve(count);
  while (all.size() < count) {
    all.push_back(pool.acquire(size));
  }
  return all;
}

void release(const std::vector<stack>& all) {
  for (const stack& s : all) {
    stack_pool::release(s);
  }
}

}  // namespace

TEST_CASE("stacks are given out last in, first out") {
  const auto pool = stack_pool::make(stack_guard::best);
  const stack a = pool->acquire(64 << 10);
  const stack b = pool->acquire(64 << 10);
  CHECK(a.memory.data() != b.memory.data());
  CHECK(pool->in_use() == 2);
  stack_pool::release(a);
  stack_pool::release(b);
  CHECK(pool->in_use() == 0);
  const stack first = pool->acquire(64 << 10);
  const stack second = pool->acquire(64 << 10);
  CHECK(first.memory.data() == b.memory.data());
  CHECK(second.memory.data() == a.memory.data());
  release({first, second});
}

TEST_CASE("stacks are as large as asked for, in whole pages, apart, and writable to both ends") {
  const auto pool = stack_pool::make(stack_guard::best);
  std::vector<stack> all;
  for (const std::size_t size : {smallest_stack_size(), std::size_t{65'537}, std::size_t{100} << 10}) {
    for (int i = 0; i < 40; ++i) {
      const stack s = pool->acquire(size);
      CHECK(s.memory.size() >= size);
      CHECK(s.memory.size() < size + page);
      CHECK(s.memory.size() % page == 0);
      CHECK(reinterpret_cast<std::uintptr_t>(s.memory.data()) % page == 0);
      touch(&s.memory.front());
      touch(&s.memory.back());
      all.push_back(s);
    }
  }
  auto sorted = all;
  std::sort(sorted.begin(), sorted.end(),
            [](const stack& a, const stack& b) { return a.memory.data() < b.memory.data(); });
  for (std::size_t i = 1; i < sorted.size(); ++i) {  // with a guard page between
    CHECK(sorted[i - 1].memory.data() + sorted[i - 1].memory.size() + page <= sorted[i].memory.data());
  }
  release(all);
}

TEST_CASE("a stack that was given back is not given out for another size") {
  const auto pool = stack_pool::make(stack_guard::best);
  const stack small = pool->acquire(64 << 10);
  stack_pool::release(small);
  const stack large = pool->acquire(128 << 10);
  CHECK(large.memory.size() == 128 << 10);
  CHECK(pool->acquire(64 << 10).memory.data() == small.memory.data());
  release({large, small});
}

TEST_CASE("a size of 0, too small or too large is std::invalid_argument that names it and the bounds") {
  const auto pool = stack_pool::make(stack_guard::best);
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, smallest_stack_size() - 1,
                                 largest_stack_size + 1, static_cast<std::size_t>(-1)}) {
    CAPTURE(size);
    try {
      (void)pool->acquire(size);
      FAIL("accepted");
    } catch (const std::invalid_argument& e) {
      const std::string what = e.what();
      CHECK(what.find(std::to_string(size)) != std::string::npos);
      CHECK(what.find(std::to_string(smallest_stack_size())) != std::string::npos);
    }
  }
  CHECK(pool->in_use() == 0);
  const stack largest = pool->acquire(largest_stack_size);
  CHECK(largest.memory.size() == largest_stack_size);
  touch(&largest.memory.front());
  stack_pool::release(largest);
}

TEST_CASE("to touch the page below a stack ends in SIGSEGV, with either guard") {
  for (const stack_guard guard : {stack_guard::best, stack_guard::mprotect}) {
    for (const bool write : {true, false}) {
      const child_end end = in_child([&] {
        const auto pool = stack_pool::make(guard);
        const auto all = acquire(*pool, 10, 64 << 10);
        touch(&all[4].memory.front());  // this one is fine
        std::byte* const below = all[4].memory.data() - 1;
        if (write) {
          touch(below);
        } else {
          (void)*static_cast<volatile std::byte*>(below);
        }
        return true;
      });
      CHECK(end.signal == SIGSEGV);
    }
  }
}

TEST_CASE("the guard holds after the stack was used and given back many times") {
  const child_end end = in_child([] {
    const auto pool = stack_pool::make(stack_guard::best);
    stack s;
    for (int i = 0; i < 1000; ++i) {
      s = pool->acquire(64 << 10);
      touch(&s.memory.front());
      stack_pool::release(s);
    }
    touch(s.memory.data() - page);
    return true;
  });
  CHECK(end.signal == SIGSEGV);
}

TEST_CASE("a guard's address tells the stack above it, and no other address does") {
  const auto pool = stack_pool::make(stack_guard::best);
  for (const std::size_t size : {smallest_stack_size(), std::size_t{64} << 10, std::size_t{32} << 20}) {
    CAPTURE(size);
    const auto all = acquire(*pool, 1'000, size);
    for (const stack& s : all) {
      std::byte* const start = s.memory.data();
      for (const std::byte* const at : {start - 1, start - page, start - page / 2}) {
        REQUIRE(pool->guarded_at(at).data() == start);
        REQUIRE(pool->guarded_at(at).size() == size);
      }
      for (const std::byte* const at : {start, start + page, start + size / 2, start + size - 1}) {
        REQUIRE(pool->guarded_at(at).empty());
      }
    }
    release(all);
  }
  CHECK(pool->guarded_at(nullptr).empty());
  CHECK(pool->guarded_at(pool.get()).empty());
}

// The kernel refuses such guards for locked memory.
TEST_CASE("where memory is locked, mprotect guards the stacks") {
  const child_end end = in_child([] {
    if (::mlockall(MCL_FUTURE | MCL_ONFAULT) != 0) {
      return true;
    }
    const auto pool = stack_pool::make(stack_guard::best);
    const stack s = pool->acquire(64 << 10);
    touch(&s.memory.front());
    touch(s.memory.data() - 1);
    return false;
  });
  CHECK((end.signal == SIGSEGV || end.exit == 0 || end.said.find("ulimit") != std::string::npos));
}

TEST_CASE("20,000 stacks are a handful of mappings, and two each where mprotect guards them") {
  {
    const auto pool = stack_pool::make(stack_guard::best);
    const std::size_t before = mappings();
    const auto all = acquire(*pool, 20'000, smallest_stack_size());
    const std::size_t grown = mappings() - before;
    std::cout << "note: 20,000 stacks took " << grown << " mappings" << std::endl;
    if (kernel_installs_guards()) {
      CHECK(grown < 100);
    }
    release(all);
    const auto again = acquire(*pool, 20'000, smallest_stack_size());
    CHECK(mappings() - before < grown + 10);  // the heap may have grown
    release(again);
  }
  const auto pool = stack_pool::make(stack_guard::mprotect);
  const std::size_t before = mappings();
  const auto all = acquire(*pool, 5'000, smallest_stack_size());
  CHECK(mappings() - before >= 10'000 - 10);
  release(all);
}

TEST_CASE("stacks nobody has touched cost no memory") {
  const auto pool = stack_pool::make(stack_guard::best);
  const std::size_t before = resident_bytes();
  auto all = acquire(*pool, 4'000, std::size_t{256} << 10);  // 1 GiB of address space
  const std::size_t after = resident_bytes();
  CHECK(after < before + (8 << 20));
  touch(&all[1'000].memory.back());  // and the first byte costs one page, not a huge one
  CHECK(resident_bytes() < after + (1 << 20));
  release(all);
}

TEST_CASE("at the mapping limit there is an honest error, and the pool goes on when stacks come back") {
  const auto most = annulet_test::reachable_mapping_limit();
  if (!most) {
    return;
  }
  const child_end end = in_child([limit = *most] {
    const auto pool = stack_pool::make(stack_guard::mprotect);
    std::vector<stack> all;
    all.reserve(limit);
    try {
      while (all.size() < limit) {
        all.push_back(pool->acquire(smallest_stack_size()));
      }
    } catch (const std::system_error& e) {
      const bool honest = e.code() == std::errc::not_enough_memory &&
                          std::string(e.what()).find("vm.max_map_count") != std::string::npos;
      const bool filled = all.size() > limit / 2 - 1'000 && pool->in_use() == all.size();
      const stack last = all.back();
      stack_pool::release(last);
      const bool goes_on = pool->acquire(smallest_stack_size()).memory.data() == last.memory.data();
      touch(&last.memory.front());
      release(all);
      return honest && filled && goes_on && pool->in_use() == 0;
    }
    return false;
  });
  CAPTURE(end.said);
  CHECK(end.signal == 0);
  CHECK(end.exit == 0);
}

TEST_CASE("at a limit on address space spawn gives ENOMEM, the last stacks come singly, and all fibers run") {
  const child_end end = in_child([] {
    annulet_test::driven world;
    constexpr std::size_t room = std::size_t{100} << 20, size = std::size_t{200} << 10;
    std::size_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    std::vector<annulet::fiber<int>> all;
    all.reserve(1'000);
    const rlimit limit{pages * page + room, pages * page + room};
    ::setrlimit(RLIMIT_AS, &limit);
    int honest = 0;
    try {
      for (int i = 0; i < 1'000; ++i) {
        all.push_back(annulet::spawn({.stack_size = size}, [i] { return i; }));
      }
    } catch (const std::system_error& e) {
      honest += e.code() == std::errc::not_enough_memory;
      honest += std::string(e.what()).find(std::to_string(size)) != std::string::npos;
    }
    // Less than two stacks of the room were left over, but for what the heap took.
    const bool filled = all.size() * (size + page) > room - 2 * (size + page) - (1 << 20);
    bool right = true;
    for (std::size_t i = 0; i < all.size(); ++i) {
      right = right && all[i].get() == static_cast<int>(i);
    }
    all.clear();
    return honest == 2 && filled && right && annulet::spawn([] { return 5; }).get() == 5;
  });
  CAPTURE(end.said);
  CHECK(end.signal == 0);
  CHECK(end.exit == 0);
}

TEST_CASE("a pool that was let go stays until its last stack is back, and then unmaps all") {
  auto pool = stack_pool::make(stack_guard::best);
  const stack a = pool->acquire(64 << 10);
  const stack b = pool->acquire(std::size_t{32} << 20);  // a slab of its own
  pool.reset();
  touch(&a.memory.front());
  stack_pool::release(a);
  touch(&b.memory.front());
  CHECK(is_mapped(a.memory.data()));
  stack_pool::release(b);
  CHECK_FALSE(is_mapped(a.memory.data()));
  CHECK_FALSE(is_mapped(b.memory.data()));
}

TEST_CASE("the tops of stacks of any size are spread over the sets of the caches") {
  annulet_test::driven world;
  std::string alike;
  for (std::size_t pages = smallest_stack_size() / page; pages <= 65; ++pages) {
    std::set<std::uintptr_t> colors;
    std::vector<annulet::fiber<void>> all;
    for (int i = 0; i < 32; ++i) {
      all.push_back(annulet::spawn({.stack_size = pages * page}, [&] {
        colors.insert(reinterpret_cast<std::uintptr_t>(&world.self()) % page / 64);
      }));
    }
    for (auto& f : all) {
      f.join();
    }
    if (colors.size() < 8) {
      alike.append(" ").append(std::to_string(pages)).append(":").append(std::to_string(colors.size()));
    }
  }
  INFO("pages of a stack, and how many different places the tops of 32 such have:", alike);
  CHECK(alike.empty());
}
