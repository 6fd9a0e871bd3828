#include "dump_fibers.hpp"

#include "check.hpp"
#include "scheduler.hpp"

#include <array>
#include <cstdio>
#include <string>
#include <string_view>

namespace annulet {

namespace detail {

namespace {

constexpr double nanoseconds_a_second = 1e9;

std::string in_seconds(std::int64_t nanoseconds) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.3f", static_cast<double>(nanoseconds) / nanoseconds_a_second);
  return text.data();
}

std::string_view word_for(fiber_state state) noexcept {
  constexpr std::array<std::string_view, 4> words{"ready", "running", "parked", "done"};
  return words[static_cast<std::size_t>(state)];
}

const waiter* waiter_of(const control_block& fiber) noexcept {
  return fiber.state == fiber_state::parked ? fiber.parked_on : nullptr;
}

// A name may be any bytes. What is no UTF-8 is the reader's to mend.
void append_quoted(std::string& to, std::string_view text) {
  to.push_back('"');
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      to.push_back('\\');
      to.push_back(c);
    } else if (code < 0x20) {
      std::array<char, 8> escaped{};
      std::snprintf(escaped.data(), escaped.size(), "\\u%04x", static_cast<unsigned>(code));
      to.append(escaped.data());
    } else {
      to.push_back(c);
    }
  }
  to.push_back('"');
}

void append_text(std::string& to, const control_block& fiber, std::int64_t now) {
  to.append(fiber.describe()).append(": ").append(word_for(fiber.state));
  if (const waiter* const w = waiter_of(fiber)) {
    to.append(" in ").append(w->what());
    if (w->fd() != waiter::no_descriptor) {
      to.append(", descriptor ").append(std::to_string(w->fd())).append(",");
    }
    to.append(" for ").append(in_seconds(now - w->since())).append(" s");
  }
  to.push_back('\n');
}

void append_json(std::string& to, const control_block& fiber, std::int64_t now) {
  to.append("{\"id\": ").append(std::to_string(fiber.id)).append(", \"name\": ");
  append_quoted(to, fiber.name());
  to.append(", \"state\": \"").append(word_for(fiber.state)).append("\"");
  if (const waiter* const w = waiter_of(fiber)) {
    to.append(", \"waits_in\": ");
    append_quoted(to, w->what());
    if (w->fd() != waiter::no_descriptor) {
      to.append(", \"descriptor\": ").append(std::to_string(w->fd()));
    }
    to.append(", \"seconds\": ").append(in_seconds(now - w->since()));
  }
  if (fiber.place.line() != 0) {
    to.append(", \"file\": ");
    append_quoted(to, fiber.place.file_name());
    to.append(", \"line\": ").append(std::to_string(fiber.place.line()));
  }
  to.push_back('}');
}

}  // namespace

std::string scheduler::dump(dump_format how) {
  const std::int64_t now = outside_.about_now();
  std::string list;
  std::array<std::size_t, 4> in_state{};
  all_.for_each([&](const control_block& fiber) {
    ++in_state[static_cast<std::size_t>(fiber.state)];
    if (fiber.state == fiber_state::done) {
      return;
    }
    if (how == dump_format::text) {
      append_text(list, fiber, now);
    } else {
      list.append(list.empty() ? "\n" : ",\n");
      append_json(list, fiber, now);
    }
  });
  if (how == dump_format::json) {
    return "{\"fibers\": [" + list + "\n]}\n";
  }
  const auto count = [&](fiber_state s) { return in_state[static_cast<std::size_t>(s)]; };
  const std::size_t running = count(fiber_state::running), ready = count(fiber_state::ready),
                    parked = count(fiber_state::parked);
  return std::to_string(running + ready + parked) + " fibers, " + std::to_string(running) +
         " of them running, " + std::to_string(ready) + " ready, " + std::to_string(parked) + " parked\n" +
         list;
}

void scheduler::end_slice() noexcept {
  const std::int64_t now = outside_.now();
  const std::int64_t took = now - std::exchange(slice_began_, now);
  if (took <= options_.slow_slice) [[likely]] {
    return;
  }
  try {
    report(running_->describe() + " kept its thread for " + in_seconds(took) +
           " s without parking or yielding");
  } catch (const std::bad_alloc&) {
    report(
        "a fiber kept its thread for longer than hub_options::slow_slice, and there is no memory to name it");
  }
}

}  // namespace detail

std::string dump_fibers(dump_format how) { return detail::scheduler::here("dump_fibers").dump(how); }

}  // namespace annulet
