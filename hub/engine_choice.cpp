#include "engine_choice.hpp"

#include "epoll_engine.hpp"
#include "uring_engine.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

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

// Without what system_error adds to it.
std::string_view said_by(const std::system_error& error) {
  const std::string_view whole = error.what();
  const std::string words = ": " + error.code().message();
  return whole.ends_with(words) ? whole.substr(0, whole.size() - words.size()) : whole;
}

// The engine that serves where io_uring does not.
std::unique_ptr<engine> make_epoll_instead(const ring_refused& ring) {
  try {
    auto made = std::make_unique<epoll_engine>();
    engine_info report = made->info();
    report.refused.insert(report.refused.begin(), ring.reasons().begin(), ring.reasons().end());
    made->note_report(std::move(report));
    return made;
  } catch (const std::system_error& error) {
    throw std::system_error(error.code(), std::string(said_by(error)) + ", and io_uring is refused (" +
                                              ring.reasons().back() + ")");
  }
}

template <class Engine, class... Options>
std::unique_ptr<engine> make(const Options&... options) {
  auto made = std::make_unique<Engine>(options...);
  made->note_report(made->info());
  return made;
}

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
    return make<epoll_engine>();
  }
  try {
    return make<uring_engine>(chosen);
  } catch (const ring_refused& refused) {
    if (chosen.engine == engine_choice::uring) {
      throw;
    }
    return make_epoll_instead(refused);
  }
}

}  // namespace annulet::detail
