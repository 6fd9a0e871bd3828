// Switches a planted bug on.
#pragma once

#include <annulet_plants.hpp>

#include <cstddef>

namespace annulet_test {

// Strikes at every n-th time that the code asks, the first of them after `first` times, while it lives.
class planting {
 public:
  explicit planting(annulet::detail::plant which, unsigned every, unsigned first = 0)
      : at_(static_cast<std::size_t>(which)) {
    annulet::detail::plant_every[at_] = every;
    annulet::detail::plant_asked[at_] = first == 0 ? 0 : every - first;
  }
  ~planting() {
    annulet::detail::plant_every[at_] = 0;
    annulet::detail::plant_asked[at_] = 0;
  }
  planting(const planting&) = delete;
  planting& operator=(const planting&) = delete;

  [[nodiscard]] unsigned asked() const noexcept { return annulet::detail::plant_asked[at_]; }

 private:
  std::size_t at_;
};

}  // namespace annulet_test
