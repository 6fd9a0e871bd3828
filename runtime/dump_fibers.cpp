#include "dump_fibers.hpp"

#include "check.hpp"
#include "scheduler.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace annulet {

namespace detail {

namespace {

// With a point, whatever the locale; the C library's way also takes much of a small stack.
std::string in_seconds(std::int64_t nanoseconds) {
  const std::int64_t milliseconds = (std::max<std::int64_t>(nanoseconds, 0) + 500'000) / 1'000'000;
  const std::string rest = std::to_string(1000 + milliseconds % 1000);
  return std::to_string(milliseconds / 1000).append(".").append(rest, 1);
}

std::string_view word_for(fiber_state state) noexcept {
  constexpr std::array<std::string_view, 4> words{"ready", "running", "parked", "done"};
  return words[static_cast<std::size_t>(state)];
}

const waiter* waiter_of(const control_block& fiber) noexcept {
  return fiber.state == fiber_state::parked ? fiber.parked_on : nullptr;
}

// How many bytes the character has that begins here, 0 where none of UTF-8 does.
std::size_t character_at(std::string_view text) noexcept {
  const auto byte = [text](std::size_t at) { return static_cast<unsigned char>(text[at]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) {
    return 1;
  }
  const std::size_t length = lead < 0xc0 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf8 ? 4 : 0;
  if (length == 0 || text.size() < length) {
    return 0;
  }
  unsigned code = lead & (0x7fU >> length);
  for (std::size_t at = 1; at < length; ++at) {
    if ((byte(at) & 0xc0U) != 0x80) {
      return 0;
    }
    code = code << 6U | (byte(at) & 0x3fU);
  }
  constexpr std::array<unsigned, 5> least{0, 0, 0x80, 0x800, 0x10000};
  const bool is_half = code >= 0xd800 && code < 0xe000;
  return code < least[length] || code > 0x10ffff || is_half ? 0 : length;
}

// A name may be any bytes.
void append_quoted(std::string& to, std::string_view text) {
  constexpr std::string_view digits = "0123456789abcdef";
  to.push_back('"');
  while (!text.empty()) {
    const std::size_t length = character_at(text);
    const auto code = static_cast<unsigned char>(text.front());
    if (length == 0) {
      to.append("\\ufffd");
    } else if (code < 0x20) {
      to.append("\\u00").append(1, digits[code / 16]).append(1, digits[code % 16]);
    } else {
      if (code == '"' || code == '\\') {
        to.push_back('\\');
      }
      to.append(text.substr(0, length));
    }
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  to.push_back('"');
}

bool has_stack_of_ours(const control_block& fiber) noexcept { return fiber.memory.pool != nullptr; }

void append_text(std::string& to, const control_block& fiber, std::int64_t now) {
  to.append(fiber.describe()).append(": ").append(word_for(fiber.state));
  if (const waiter* const w = waiter_of(fiber)) {
    to.append(" in ").append(w->what());
    if (w->fd() != waiter::no_descriptor) {
      to.append(", descriptor ").append(std::to_string(w->fd())).append(",");
    }
    to.append(" for ").append(in_seconds(now - w->since())).append(" s");
  }
  if (has_stack_of_ours(fiber)) {
    constexpr std::size_t kib = 1024;
    to.append("; stack used: ").append(std::to_string(stack_used(fiber.memory) / kib)).append(" of ");
    to.append(std::to_string(fiber.memory.memory.size() / kib)).append(" KiB");
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
  if (has_stack_of_ours(fiber)) {
    to.append(", \"stack_used\": ").append(std::to_string(stack_used(fiber.memory)));
    to.append(", \"stack_size\": ").append(std::to_string(fiber.memory.memory.size()));
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
