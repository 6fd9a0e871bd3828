#include "machine.hpp"

#include <algorithm>
#include <functional>

#include <fcntl.h>
#include <unistd.h>

namespace oracle {

using annulet::io_event;

namespace {

constexpr std::size_t most_open = 56;
constexpr std::size_t least_open = 24;

io_event some_events(dice& d) {
  constexpr std::array choices = {io_event::read, io_event::read, io_event::write,
                                  io_event::read | io_event::write};
  return choices[d.below(choices.size())];
}

}  // namespace

template <class Error, class Call>
void machine::must_refuse(const char* what, int fd, Call&& call) {
  try {
    call();
  } catch (const Error&) {
    return;
  }
  fail(fd, std::string(what) + " was not refused");
}

descriptor* machine::find(int fd) noexcept {
  const auto found = std::ranges::find(open_, fd, &descriptor::fd);
  return found == open_.end() ? nullptr : &*found;
}

descriptor* machine::find(const std::shared_ptr<file>& of) noexcept {
  const auto found = std::ranges::find(open_, of, &descriptor::of);
  return found == open_.end() ? nullptr : &*found;
}

void machine::forget(int fd) noexcept {
  std::swap(*find(fd), open_.back());
  open_.pop_back();
}

void machine::open_some(dice& d) {
  const auto what = static_cast<kind>(d.below(kinds));
  for (descriptor& made : workshop_.make(what, d)) {
    history_.note(name_of(made.of->what), made.fd);
    open_.push_back(std::move(made));
  }
}

void machine::duplicate(dice& d) {
  const descriptor of = d.pick(open_);
  if (const int fd = ::fcntl(of.fd, F_DUPFD_CLOEXEC, 0); fd >= 0) {
    history_.note("dup", fd, -1, of.fd);
    open_.push_back({fd, of.of});
  }
}

void machine::register_one(side& s, dice& d) {
  const int fd = d.pick(open_).fd;
  const io_event events = some_events(d);
  if (s.keys.find(fd) != nullptr) {
    history_.note("register again", fd, s.number);
    must_refuse<annulet::key_error>("a second registration", fd,
                                    [&] { s.select_with->register_(fd, events, 0); });
    return;
  }
  const std::uint64_t data = next_data_++;
  history_.note("register", fd, s.number, static_cast<long>(events));
  const auto key = s.select_with->register_(fd, events, data);
  if (key->fd != fd || key->events != events || key->data != data) {
    fail(fd, "register returned another key");
  }
  s.keys.add({fd, events, data});
}

void machine::modify_one(side& s, dice& d) {
  if (s.keys.empty()) {
    return;
  }
  registration& key = d.pick(s.keys.all());
  const io_event events = d.one_in(4) ? key.events : some_events(d);
  const std::uint64_t data = next_data_++;
  history_.note("modify", key.fd, s.number, static_cast<long>(events));
  const auto made = s.select_with->modify(key.fd, events, data);
  key.events = events;
  key.data = data;
  if (made->fd != key.fd || made->events != events || made->data != data) {
    fail(key.fd, "modify returned another key");
  }
}

void machine::unregister_one(side& s, int fd) {
  registration known = std::move(*s.keys.find(fd));
  history_.note("unregister", fd, s.number, static_cast<long>(known.how));
  const auto key = s.select_with->unregister(fd);
  if (key->fd != fd || key->events != known.events || key->data != known.data) {
    fail(fd, "unregister returned another key");
  }
  s.keys.erase(fd);
  if (known.pinned != nullptr) {
    release_pinned(std::move(known.pinned));
  }
}

void machine::unregister_some(side& s, dice& d) {
  std::vector<int> fds;
  std::vector<std::shared_ptr<file>> pinned;
  const std::size_t often = 2 + d.below(6);
  for (registration& key : s.keys.all()) {
    if (d.one_in(often)) {
      fds.push_back(key.fd);
    }
  }
  if (!fds.empty() && d.one_in(8)) {
    std::vector<int> wrong = fds;
    wrong.push_back(d.one_in(2) ? fds.front() : 4000);
    must_refuse<annulet::key_error>("unregister_all of one twice, or of a stranger", wrong.back(),
                                    [&] { s.select_with->unregister_all(wrong); });
    return;
  }
  history_.note("unregister_all", fds.empty() ? -1 : fds.front(), s.number, static_cast<long>(fds.size()));
  s.select_with->unregister_all(fds);
  for (const int fd : fds) {
    history_.note("unregistered with others", fd, s.number);
    if (auto& pin = s.keys.find(fd)->pinned; pin != nullptr) {
      pinned.push_back(std::move(pin));
    }
    s.keys.erase(fd);
  }
  while (!pinned.empty()) {
    auto one = std::move(pinned.back());
    pinned.pop_back();
    release_pinned(std::move(one));
  }
}

// Unregisters what has lost its file.
void machine::cure(side& s) {
  const auto found =
      std::ranges::find_if(s.keys.all(), [](const registration& key) { return key.how != standing::live; });
  if (found != s.keys.all().end()) {
    unregister_one(s, found->fd);
  }
}

void machine::cure_behind(side& s) {
  while (s.keys.behind() != 0) {
    const auto found = std::ranges::find(s.keys.all(), standing::behind, &registration::how);
    unregister_one(s, found->fd);
  }
}

void machine::use_wrongly(side& s, dice& d) {
  selector& with = *s.select_with;
  constexpr int nobody = 4000;  // beyond every number in use
  switch (d.below(6)) {
    case 0:
      must_refuse<std::invalid_argument>("a negative number", -1,
                                         [&] { with.register_(-1, io_event::read); });
      break;
    case 1:
      must_refuse<std::invalid_argument>("a closed number", nobody,
                                         [&] { with.register_(nobody, io_event::read); });
      break;
    case 2:
      must_refuse<std::invalid_argument>("an O_PATH descriptor", workshop_.path(),
                                         [&] { with.register_(workshop_.path(), io_event::read); });
      break;
    case 3:
      must_refuse<annulet::key_error>("unregister of a stranger", nobody, [&] { with.unregister(nobody); });
      break;
    case 4:
      if (const int fd = d.pick(open_).fd; s.keys.find(fd) == nullptr) {
        must_refuse<std::invalid_argument>("register with no events", fd,
                                           [&] { with.register_(fd, io_event::none); });
      } else {
        must_refuse<std::invalid_argument>("modify with unknown events", fd,
                                           [&] { with.modify(fd, static_cast<io_event>(5)); });
      }
      break;
    default:
      must_refuse<annulet::key_error>("modify of a stranger", nobody,
                                      [&] { with.modify(nobody, io_event::read); });
      break;
  }
}

void machine::disturb(dice& d) {
  const descriptor of = d.pick(open_);
  const std::size_t bytes = 1 + d.below(d.one_in(4) ? 3000 : 100);
  switch (d.below(16)) {
    case 0:
    case 1:
      history_.note("fill", of.fd);
      fill(of);
      break;
    case 2:
    case 3:
      history_.note("twist", of.fd);
      twist(of, d);
      break;
    case 4:
    case 5:
    case 6:
      history_.note("drain", of.fd);
      drain(of);
      break;
    case 7:
    case 8:
    case 9:
      history_.note("take", of.fd, -1, static_cast<long>(bytes));
      take(of, bytes);
      break;
    default:
      history_.note("put", of.fd, -1, static_cast<long>(bytes));
      put(of, bytes);
      break;
  }
}

void machine::inspect(side& s) {
  const auto map = s.select_with->get_map();
  std::size_t found = 0;
  for (const auto& [fd, key] : map) {
    const registration* const known = s.keys.find(fd);
    if (known == nullptr || key->data != known->data || key->events != known->events) {
      fail(fd, "the mapping has another key");
    }
    ++found;
  }
  if (found != s.keys.size() || map.size() != found) {
    fail(-1, "the mapping has " + std::to_string(found) + " keys, not " + std::to_string(s.keys.size()));
  }
}

// Also under a parked select, which must say so.
void machine::replace_selector(side& s, dice& d) {
  history_.note("close the selector", -1, s.number);
  if (d.one_in(2)) {
    s.select_with->close();
  }
  s.select_with = nullptr;
  s.select_with = std::make_unique<selector>();
  s.closed_under = s.parked;
  std::vector<std::shared_ptr<file>> pinned;
  for (registration& key : s.keys.all()) {
    if (key.pinned != nullptr) {
      pinned.push_back(std::move(key.pinned));
    }
  }
  s.keys.clear();
  while (!pinned.empty()) {
    auto one = std::move(pinned.back());
    pinned.pop_back();
    release_pinned(std::move(one));
  }
}

// One operation, but for a parked select.
void machine::operate(dice& d) {
  ++counts_.operations;
  if (open_.size() < least_open || (open_.size() < most_open && d.one_in(16))) {
    open_some(d);
    return;
  }
  side& s = d.pick(sides_);
  const std::size_t choice = open_.size() >= most_open ? 83 + d.below(6) : d.below(100);
  if (choice < 18) {
    register_one(s, d);
  } else if (choice < 27) {
    modify_one(s, d);
  } else if (choice < 62) {
    disturb(d);
  } else if (choice < 67) {
    if (!s.keys.empty()) {
      unregister_one(s, d.pick(s.keys.all()).fd);
    }
  } else if (choice < 71) {
    cure(s);
  } else if (choice < 73) {
    use_wrongly(s, d);
  } else if (choice < 74) {
    d.one_in(8) ? unregister_some(s, d) : inspect(s);
  } else if (choice < 76) {
    duplicate(d);
  } else if (choice < 78) {
    close_rudely(d);
  } else if (choice < 80) {
    dup_rudely(d);
  } else if (choice < 83) {
    dup_through_hub(d);
  } else if (choice < 86) {
    close_quietly(d);
  } else if (choice < 89) {
    close_through_hub(d);
  } else if (choice < 90) {
    if (d.one_in(8)) {
      replace_selector(s, d);
    }
  } else if (!s.parked) {
    select_step(s, d);
  }
}

}  // namespace oracle
