// Which engine a hub gets. Internal.
#pragma once

#include "engine.hpp"
#include "hub_options.hpp"

#include <memory>

namespace annulet::detail {

// As the options say, or the environment, or what the kernel allows (hub_options.hpp). Throws
// std::invalid_argument for an option or a variable that says nothing sensible, and std::system_error where
// the engine that was asked for is refused, or none can be had.
[[nodiscard]] std::unique_ptr<engine> make_engine(const hub_options& options);

}  // namespace annulet::detail
