#include "model.hpp"

#include <algorithm>
#include <array>

namespace oracle {

using annulet::io_event;

void registrations::add(const registration& key) {
  const auto at = static_cast<std::size_t>(key.fd);
  if (at >= place_.size()) {
    place_.resize(at + 1, -1);
  }
  place_[at] = static_cast<int>(keys_.size());
  keys_.push_back(key);
}

void registrations::erase(int fd) {
  const auto at = static_cast<std::size_t>(fd);
  const auto i = static_cast<std::size_t>(place_[at]);
  behind_ -= keys_[i].how == standing::behind ? 1 : 0;
  place_[at] = -1;
  if (i + 1 != keys_.size()) {
    keys_[i] = std::move(keys_.back());
    place_[static_cast<std::size_t>(keys_[i].fd)] = static_cast<int>(i);
  }
  keys_.pop_back();
}

void registrations::clear() {
  keys_.clear();
  place_.clear();
  behind_ = 0;
}

// One that is behind stays so: whose the number was when the hub heard of it is anybody's guess.
void registrations::note_closed(int fd) {
  if (registration* const key = find(fd); key != nullptr && key->how == standing::live) {
    key->how = standing::closed;
  }
}

void registrations::note_behind(int fd, std::shared_ptr<file> old) {
  if (registration* const key = find(fd); key != nullptr && key->how == standing::live) {
    key->how = standing::behind;
    key->pinned = std::move(old);
    ++behind_;
  }
}

short poll_mask(io_event asked) noexcept {
  return static_cast<short>((has(asked, io_event::read) ? POLLIN : 0) |
                            (has(asked, io_event::write) ? POLLOUT : 0));
}

io_event mapped(short revents, io_event asked) noexcept {
  io_event events = io_event::none;
  if ((revents & ~POLLOUT) != 0) {
    events |= io_event::read;
  }
  if ((revents & ~POLLIN) != 0) {
    events |= io_event::write;
  }
  return events & asked;
}

void look(registrations& keys, std::vector<pollfd>& out) {
  out.clear();
  for (const registration& key : keys.all()) {
    out.push_back({key.how == standing::closed ? -1 : key.fd, poll_mask(key.events), 0});
  }
  ::poll(out.data(), out.size(), 0);
}

io_event expected(const registration& key, const pollfd& polled) noexcept {
  return key.how == standing::closed ? key.events : mapped(polled.revents, key.events);
}

bool anything_ready(registrations& keys, std::vector<pollfd>& scratch) {
  look(keys, scratch);
  for (std::size_t i = 0; i < scratch.size(); ++i) {
    if (keys.all()[i].how != standing::behind && expected(keys.all()[i], scratch[i]) != io_event::none) {
      return true;
    }
  }
  return false;
}

namespace {

std::string text(io_event events) {
  constexpr std::array<const char*, 4> names = {"nothing", "read", "write", "read|write"};
  return names[static_cast<unsigned>(events) & 3U];
}

std::string number(int n) { return std::to_string(n); }

// What is wrong with what select said of one key, or nothing.
std::string compare(const registration& key, io_event said, const pollfd& before, const pollfd& after,
                    rule by) {
  const io_event first = expected(key, before);
  const io_event then = expected(key, after);
  if (key.how == standing::behind) {
    const bool allowed = said == io_event::none || said == key.events || said == first || said == then;
    return allowed ? "" : "closed behind the hub's back, select said " + text(said);
  }
  if (by == rule::no_more ? (said & then) == said : said == then) {
    return "";
  }
  if (by == rule::exact && first != then) {
    return "";  // this one is not judged
  }
  return std::string(key.how == standing::closed ? "closed through the hub" : "live") + ", asked for " +
         text(key.events) + ", select said " + text(said) + ", poll says " + text(then) + " (revents " +
         number(after.revents) + ")";
}

}  // namespace

judgement judge(registrations& keys, const std::vector<selector::ready_type>& ready,
                const std::vector<pollfd>& before, const std::vector<pollfd>& after, rule by) {
  judgement result;
  thread_local std::vector<io_event> said;
  said.assign(keys.size(), io_event::none);
  for (const auto& [key, events] : ready) {
    const registration* const known = keys.find(key->fd);
    result.fd = key->fd;
    if (known == nullptr) {
      result.wrong = "select returned a key that is not registered";
      return result;
    }
    io_event& place = said[static_cast<std::size_t>(known - keys.all().data())];
    if (place != io_event::none || events == io_event::none || key->events != known->events ||
        key->data != known->data) {
      result.wrong = "select returned a key twice, for nothing, or with another's events or data";
      return result;
    }
    place = events;
  }
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const registration& key = keys.all()[i];
    if (auto wrong = compare(key, said[i], before[i], after[i], by); !wrong.empty()) {
      result.fd = key.fd;
      result.key = &key;
      result.wrong = std::move(wrong);
      return result;
    }
    const bool same = by == rule::no_more ? said[i] == expected(key, after[i])
                                          : expected(key, before[i]) == expected(key, after[i]);
    result.judged = result.judged && (key.how == standing::behind || same);
  }
  return result;
}

}  // namespace oracle
