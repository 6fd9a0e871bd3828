// Guards by mprotect, where the kernel has no others, and what comes when it refuses those.
#include <annulet/hub/hub.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>

#include "support/child.hpp"
#include "support/driven_clock.hpp"
#include "support/overflowing.hpp"
#include "support/own_memory.hpp"
#include "support/refused_calls.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <string>
#include <system_error>
#include <vector>

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

using annulet::smallest_stack_size;
using annulet::spawn;
using annulet_test::child_end;
using annulet_test::driven;
using annulet_test::in_child;
using annulet_test::mappings;
using namespace std::chrono_literals;

namespace {

constexpr unsigned guard_install = 102;

void be_an_old_kernel() { annulet::test::refuse_where(SYS_madvise, 2, guard_install, EINVAL); }

std::string why_no_stack(const std::system_error& e) {
  return e.code() == std::errc::not_enough_memory ? e.what() : "another error";
}

// Fibers that wait, until no more are to be had.
struct crowd {
  annulet::event go;
  std::size_t woken = 0;
  std::vector<annulet::fiber<void>> all;
  std::string refused;

  void spawn_until_refused(std::size_t most) {
    all.reserve(most);
    try {
      while (all.size() < most) {
        all.push_back(spawn({.stack_size = smallest_stack_size()}, [this] {
          go.wait();
          ++woken;
        }));
      }
    } catch (const std::system_error& e) {
      refused = why_no_stack(e);
    }
  }
  bool end() {
    go.set();
    for (auto& f : all) {
      f.join();
    }
    const bool right = woken == all.size();
    all.clear();
    return right;
  }
};

}  // namespace

TEST_CASE("on a kernel without guards of its own mprotect guards the stacks, two mappings each") {
  const child_end end = in_child([] {
    be_an_old_kernel();
    const annulet::hub home;
    const std::size_t before = mappings();
    crowd some;
    some.spawn_until_refused(2'000);
    const std::size_t grown = mappings() - before;
    return grown >= 4'000 && grown < 8'000 && some.all.size() == 2'000 && some.end();
  });
  CAPTURE(end.said);
  CHECK(end.exit == 0);
}

TEST_CASE("an overflow onto such a guard is named, and ends in SIGSEGV") {
  const child_end end = in_child([] {
    be_an_old_kernel();
    const annulet::hub home;
    spawn({.name = "deep"}, [] {
      annulet_test::run_over(annulet_test::way_down::one_alloca, 400'000);
    }).join();
    return true;
  });
  CAPTURE(end.said);
  CHECK(end.signal == SIGSEGV);
  CHECK(end.says("\"deep\" (spawned at "));
  CHECK(end.says("ran over the end of its stack of 262144 bytes"));
}

TEST_CASE("at the mapping limit spawn says so, all fibers run, and there are stacks again when some end") {
  const auto most = annulet_test::reachable_mapping_limit();
  if (!most) {
    return;
  }
  const child_end end = in_child([limit = *most] {
    be_an_old_kernel();
    const annulet::hub home;
    crowd many;
    many.spawn_until_refused(limit);
    const std::size_t first = many.all.size();
    const bool honest =
        many.refused.find("vm.max_map_count") != std::string::npos && first > limit / 2 - 2'000;
    const bool ran = many.end();
    crowd others;
    others.spawn_until_refused(first);
    const bool as_many = others.all.size() == first && others.refused.empty();
    return honest && ran && as_many && others.end();
  });
  CAPTURE(end.said);
  CHECK(end.exit == 0);
}

TEST_CASE("a slab whose guards are refused in the middle is unmapped, and the next spawn is fine") {
  const child_end end = in_child([] {
    static std::atomic<int> guards{0};
    static std::atomic<bool> refusing{false};
    annulet::test::judge_calls({SYS_mprotect, SYS_madvise}, [](const seccomp_data& call) {
      if (call.nr == SYS_madvise) {
        return call.args[2] == guard_install ? EINVAL : 0;
      }
      const bool is_guard = call.args[2] == PROT_NONE && call.args[1] == 4096;
      return is_guard && refusing && ++guards > 100 ? ENOMEM : 0;
    });
    driven world;
    spawn([] {}).join();  // what malloc maps is mapped
    const std::size_t before = mappings();
    refusing = true;
    std::string why;
    for (const std::size_t size : {smallest_stack_size(), 2 * smallest_stack_size()}) {
      try {
        spawn({.stack_size = size}, [] {}).join();
      } catch (const std::system_error& e) {
        why += why_no_stack(e);
      }
    }
    // The first one came singly, when its slab was refused: the second took what was left, and more.
    const bool told = why.find("mprotect refused its guard page") != std::string::npos;
    const bool unmapped = mappings() <= before + 4;
    refusing = false;
    crowd some;
    some.spawn_until_refused(1'000);
    return told && unmapped && some.all.size() == 1'000 && some.end();
  });
  CAPTURE(end.said);
  CHECK(end.exit == 0);
}
