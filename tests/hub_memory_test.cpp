// Memory that runs out while a hub on epoll is made, at each allocation in turn.
#include "support/files.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>

#include <doctest/doctest.h>

#include <cstdlib>
#include <new>
#include <optional>

namespace {

unsigned left = 0;  // allocations until one fails; 0: none does

}  // namespace

void* operator new(std::size_t size) {
  if (left != 0 && --left == 0) {
    throw std::bad_alloc();
  }
  if (void* const memory = std::malloc(size != 0 ? size : 1)) {
    return memory;
  }
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

TEST_CASE(
    "where memory runs out while a hub is made it says so, leaves no descriptor behind, and can be made") {
  annulet::hub_options options;
  options.engine = annulet::engine_choice::epoll;
  { const annulet::hub warm_up(options); }
  const std::size_t before = annulet::test::open_descriptors();
  unsigned refused = 0;
  for (unsigned at = 1;; ++at) {
    CAPTURE(at);
    std::optional<annulet::hub> home;
    bool told = false;
    left = at;
    try {
      home.emplace(options);
    } catch (const std::bad_alloc&) {
      told = true;
    }
    const bool all_were_had = left != 0;
    left = 0;
    if (all_were_had) {
      break;
    }
    REQUIRE(told);
    REQUIRE(annulet::test::open_descriptors() == before);
    ++refused;
    home.emplace(options);
    REQUIRE(annulet::spawn([] { return 7; }).get() == 7);
  }
  CHECK(refused >= 3);
}
