#include "machine.hpp"

#include <annulet/hub/close.hpp>

#include <cerrno>

#include <fcntl.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace oracle {

// Whether the end of a stream can arrive: a TCP stream's waits behind what is still on its way, and outside
// the window of a peer that does not read.
bool machine::all_arrived(const descriptor& d) {
  if (d.of->what != kind::tcp) {
    return true;
  }
  const auto peer = d.of->peer.lock();
  const descriptor* const other = peer == nullptr ? nullptr : find(peer);
  int on_its_way = 0;
  int unread = 0;
  return other != nullptr && ::ioctl(d.fd, SIOCOUTQ, &on_its_way) == 0 && on_its_way == 0 &&
         ::ioctl(other->fd, FIONREAD, &unread) == 0 && unread == 0;
}

// Whether a key whose own file went behind the hub's back may watch whatever has its number now.
bool machine::is_haunted(int fd) {
  for (side& s : sides_) {
    if (const registration* const key = s.keys.find(fd); key != nullptr && key->how == standing::behind) {
      return true;
    }
  }
  return false;
}

void machine::note_closed(int fd) {
  for (side& s : sides_) {
    counts_.closed_keys += s.keys.find(fd) != nullptr ? 1 : 0;
    s.keys.note_closed(fd);
  }
}

void machine::note_behind(int fd, const std::shared_ptr<file>& old) {
  for (side& s : sides_) {
    counts_.behind_keys += s.keys.find(fd) != nullptr ? 1 : 0;
    s.keys.note_behind(fd, old);
  }
}

// At most a tenth of the keys at a time.
bool machine::may_be_rude(int fd) {
  for (side& s : sides_) {
    if (s.keys.find(fd) != nullptr && (s.keys.behind() + 1) * 10 > s.keys.size()) {
      return false;
    }
  }
  return true;
}

// The machine has given up a reference to a file, and the kernel must have done so too: where it was the
// last, the other end sees it now.
void machine::released(std::shared_ptr<file> of, bool certain) {
  const kind what = of->what;
  const std::weak_ptr<file> gone = of;
  const auto peer = of->peer.lock();
  of.reset();
  const descriptor* const other = peer == nullptr ? nullptr : find(peer);
  if (!gone.expired() || other == nullptr || !end_shows(what) || !certain) {
    return;
  }
  // The end of a TCP stream is a packet, which the kernel may leave to a thread of its own for a moment.
  pollfd asked{other->fd, POLLRDHUP, 0};
  ::poll(&asked, 1, what == kind::tcp ? 1000 : 0);
  if ((asked.revents & (POLLHUP | POLLRDHUP | POLLERR)) == 0) {
    fail(other->fd, std::string("the peer of a ") + name_of(what) + " that was let go does not see its end");
  }
  ++counts_.ends_seen;
}

// The same when a key goes that held the file of a descriptor long closed.
void machine::release_pinned(std::shared_ptr<file> of) {
  const bool certain = of->what != kind::tcp;
  released(std::move(of), certain);
}

void machine::close_through_hub(dice& d) {
  descriptor one = d.pick(open_);
  const bool certain = all_arrived(one);
  history_.note("annulet::close", one.fd);
  forget(one.fd);
  annulet::close(one.fd);
  note_closed(one.fd);
  released(std::move(one.of), certain);
}

// Unregistered, then bare.
void machine::close_quietly(dice& d) {
  descriptor one = d.pick(open_);
  for (side& s : sides_) {
    if (s.keys.find(one.fd) != nullptr) {
      unregister_one(s, one.fd);
    }
  }
  const bool certain = all_arrived(one);
  history_.note("unregistered, close", one.fd);
  forget(one.fd);
  ::close(one.fd);
  released(std::move(one.of), certain);
}

// Bare, and unregistered at once or some time later.
void machine::close_rudely(dice& d) {
  descriptor one = d.pick(open_);
  if (!may_be_rude(one.fd)) {
    return;
  }
  const int fd = one.fd;
  const bool certain = all_arrived(one) && !is_haunted(fd);
  history_.note("close behind the back", fd);
  forget(fd);
  ::close(fd);
  note_behind(fd, one.of);
  released(std::move(one.of), certain);
  if (d.one_in(3)) {
    for (side& s : sides_) {
      if (s.keys.find(fd) != nullptr) {
        unregister_one(s, fd);
      }
    }
  }
}

// Onto a number in use, or onto one that is free.
void machine::dup_through_hub(dice& d) {
  const descriptor source = d.pick(open_);
  const int target = d.one_in(4) ? 20 + static_cast<int>(d.below(60)) : d.pick(open_).fd;
  descriptor* const old = find(target);
  if (old == nullptr) {
    if (::fcntl(target, F_GETFD) >= 0) {
      return;  // somebody else's
    }
    history_.note("annulet::dup2 to a free number", target, -1, source.fd);
    annulet::dup2(source.fd, target);
    open_.push_back({target, source.of});
    note_closed(target);
    return;
  }
  history_.note("annulet::dup2", target, -1, source.fd);
  if (annulet::dup2(source.fd, target) != target) {
    fail(target, "dup2 returned another number");
  }
  if (target == source.fd) {
    return;
  }
  const bool certain = old->of->what != kind::tcp;
  std::shared_ptr<file> let_go = std::move(old->of);
  old->of = source.of;
  note_closed(target);
  released(std::move(let_go), certain);
}

void machine::dup_rudely(dice& d) {
  const descriptor source = d.pick(open_);
  descriptor& old = d.pick(open_);
  if (old.fd == source.fd || !may_be_rude(old.fd)) {
    return;
  }
  history_.note("dup2 behind the back", old.fd, -1, source.fd);
  ::dup2(source.fd, old.fd);
  const bool certain = old.of->what != kind::tcp && !is_haunted(old.fd);
  note_behind(old.fd, old.of);
  std::shared_ptr<file> let_go = std::move(old.of);
  old.of = source.of;
  released(std::move(let_go), certain);
}

}  // namespace oracle
