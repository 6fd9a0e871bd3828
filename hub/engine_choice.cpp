#include "engine_choice.hpp"

#include "epoll_engine.hpp"
#include "uring_engine.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

namespace annulet::detail {

namespace {

template <class Value>
struct word {
  std::string_view text;
  Value value;
};

// What a variable of the environment says; `otherwise` where it is not set.
template <class Value, std::size_t count>
Value from_environment(const char* name, const word<Value> (&words)[count], Value otherwise) {
  const char* const set = std::getenv(name);
  if (set == nullptr) {
    return otherwise;
  }
  std::string known;
  for (const word<Value>& w : words) {
    if (w.text == set) {
      return w.value;
    }
    known.append(known.empty() ? "" : ", ").append(w.text);
  }
  throw std::invalid_argument(std::string("annulet: the environment variable ") + name + " is \"" + set +
                              "\", must be one of: " + known);
}

constexpr word<engine_choice> engines[] = {{"uring", engine_choice::uring}, {"epoll", engine_choice::epoll}};
constexpr word<ring_mode> modes[] = {{"defer_taskrun", ring_mode::defer_taskrun},
                                     {"coop_taskrun", ring_mode::coop_taskrun},
                                     {"submit_all", ring_mode::submit_all},
                                     {"plain", ring_mode::plain}};

}  // namespace

std::unique_ptr<engine> make_engine(const hub_options& options) {
  hub_options chosen = options;
  if (chosen.engine < engine_choice::automatic || chosen.engine > engine_choice::epoll) {
    throw std::invalid_argument("annulet: hub_options::engine is no engine_choice");
  }
  if (chosen.engine == engine_choice::automatic) {
    chosen.engine = from_environment("ANNULET_ENGINE", engines, engine_choice::automatic);
  }
  if (chosen.mode == hub_options().mode) {
    chosen.mode = from_environment("ANNULET_RING_MODE", modes, chosen.mode);
  }
  ring::require_valid(chosen);
  if (chosen.engine == engine_choice::epoll) {
    return std::make_unique<epoll_engine>();
  }
  return std::make_unique<uring_engine>(chosen);
}

}  // namespace annulet::detail
