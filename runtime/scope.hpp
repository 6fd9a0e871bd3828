// Ties fibers to a block: when scope() has returned, however it does, all that were spawned in it have ended.
//
//   annulet::scope([&](annulet::fiber_group& children) {
//     children.spawn([&] { upload(a); });
//     children.spawn([&] { upload(b); });
//   });                                        // both have ended; what one of them threw is thrown here
//
// Where the body or a child throws, or this fiber is killed, the children that are left are killed and waited
// for first, and nothing interrupts that. A child's error does not interrupt the body: it is looked at when
// that is over, or by the body's own children.get(). In a child that the body forks there are none to wait
// for.
#pragma once

#include "fiber_group.hpp"

#include <concepts>
#include <cstddef>
#include <deque>
#include <functional>
#include <iterator>
#include <optional>
#include <ranges>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace [[gnu::visibility("default")]] annulet {

// Calls body(children) and returns what it returns, after the last child has ended. Parks. Throws what the
// body throws, or else what the first child threw that failed; the others' errors are reported on stderr. At
// most `limit` children run at a time: beyond that the body's spawn() waits.
template <std::invocable<fiber_group&> Body>
std::invoke_result_t<Body, fiber_group&> scope(Body&& body, std::size_t limit = fiber_group::unlimited) {
  using result = std::invoke_result_t<Body, fiber_group&>;
  const auto* const hub = detail::wait_queue::require_hub("scope");
  fiber_group children(limit);
  const auto are_parents = [hub] { return detail::wait_queue::is_left_to_parent(hub); };
  const auto get_all = [&] {
    while (!are_parents()) {
      children.get();
      if (children.empty()) {  // else others have been given it, and spawn too
        break;
      }
    }
  };
  try {
    if constexpr (std::is_void_v<result>) {
      std::invoke(std::forward<Body>(body), children);
      get_all();
    } else {
      result value = std::invoke(std::forward<Body>(body), children);
      get_all();
      return static_cast<result&&>(value);
    }
  } catch (...) {
    while (!are_parents()) {
      children.kill_and_join();
      if (children.empty()) {
        break;
      }
    }
    throw;
  }
}

namespace detail {

// What a fiber is given of a range: the element itself where that stays, else its value.
template <class Range>
using mapped_item =
    std::conditional_t<std::ranges::forward_range<Range> &&
                           std::is_lvalue_reference_v<std::ranges::range_reference_t<Range>>,
                       std::ranges::range_reference_t<Range>, std::ranges::range_value_t<Range>>;

}  // namespace detail

// fn(item) of each item of the range, at most `limit` of them at a time, a fiber each. Parks. Returns the
// results in the range's order, or nothing where fn does. What one of them throws ends the others and is
// thrown, the first in time. std::invalid_argument for a limit of 0.
template <std::ranges::input_range Range, class F>
requires std::invocable<F&, detail::mapped_item<Range>>
auto map_in_fibers(std::size_t limit, Range&& range, F fn) {
  using item = detail::mapped_item<Range>;
  using value = std::remove_cvref_t<std::invoke_result_t<F&, item>>;
  if (limit == 0) {
    throw std::invalid_argument("annulet: map_in_fibers: a limit of 0");
  }
  detail::wait_queue::require_hub("map_in_fibers");
  const auto for_each = [&](auto&& spawn_one) {
    scope(
        [&](fiber_group& children) {
          for (auto&& each : range) {
            if (children.failed()) {
              break;
            }
            spawn_one(children, std::forward<decltype(each)>(each));
          }
        },
        limit);
  };
  if constexpr (std::is_void_v<value>) {
    for_each([&](fiber_group& children, item each) {
      children.spawn([&fn, held = std::tuple<item>(std::forward<item>(each))]() mutable {
        (void)std::invoke(fn, std::get<0>(std::move(held)));
      });
    });
  } else {
    std::deque<std::optional<value>> found;  // whose elements stay where they are
    for_each([&](fiber_group& children, item each) {
      auto& place = found.emplace_back();
      children.spawn([&fn, &place, held = std::tuple<item>(std::forward<item>(each))]() mutable {
        place.emplace(std::invoke(fn, std::get<0>(std::move(held))));
      });
    });
    std::vector<value> results;
    results.reserve(found.size());
    for (auto& each : found) {
      results.push_back(std::move(each.value()));
    }
    return results;
  }
}

}  // namespace annulet
