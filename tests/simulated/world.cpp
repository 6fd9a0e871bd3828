#include "world.hpp"

#include <annulet/hub/close.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace simulated {

using annulet::deadline;

const std::vector<world::named> world::operations_ = {
    {"read", &world::read},
    {"write", &world::write},
    {"select", &world::select},
    {"poll", &world::poll},
    {"epoll_wait", &world::wait_for_epoll},
    {"sleep", &world::sleep},
    {"close", &world::close},
    {"pread and pwrite", &world::transfer},
    {"accept", &world::accept},
    {"kill", &world::kill},
    {"timeout guard", &world::guard},
    {"an act of the far ends", &world::act_beside},
};

std::vector<const char*> operation_names() {
  std::vector<const char*> names;
  for (const auto& one : world::operations_) {
    names.push_back(one.name);
  }
  return names;
}

world::world(const script& s, std::uint64_t seed) : script_(s), dice_(seed), workers_(2 + dice_.below(6)) {}

world::~world() {
  for (const int fd : {disk_, listener_}) {
    if (fd >= 0) {
      ::close(fd);
    }
  }
}

void world::require(bool holds, std::string_view what) {
  if (!holds) {
    if (result.broken.empty()) {
      result.broken = std::string(what) + " (at step " + std::to_string(result.steps) + ")";
    }
    over_ = true;
  }
}

void world::run(kernel& k, annulet::hub& home) {
  kernel_ = &k;
  handle_ = home.handle();
  disk_ = ::memfd_create("simulated", MFD_CLOEXEC);
  std::array<std::uint8_t, disk_size> bytes{};
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = byte_at(i);
  }
  require(::pwrite(disk_, bytes.data(), bytes.size(), 0) == disk_size, "the disk cannot be made");
  listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un any{AF_UNIX, {}};
  (void)::bind(listener_, reinterpret_cast<sockaddr*>(&any), sizeof(sa_family_t));
  require(::listen(listener_, 4) == 0, "a listener cannot be made");
  for (int i = 0; i < 6; ++i) {
    places_.push_back(std::make_shared<place>(dice_));
  }
  for (worker& one : workers_) {
    spawn(one);
  }
  ended_.wait();
  kill_all();
  for (worker& one : workers_) {
    one.fiber->join();
  }
  annulet::close(std::exchange(listener_, -1));
  workers_.clear();
  handle_.reset();
  places_.clear();
}

void world::spawn(worker& one) {
  one.killed = false;
  one.fiber.emplace(annulet::spawn([this, &one] { work(one); }));
}

void world::kill_all() {
  for (worker& one : workers_) {
    one.fiber->kill();
  }
}

void world::work(worker& self) {
  while (!over_) {
    const std::size_t which = dice_.below(operations_.size());
    if (++result.steps >= script_.steps) {
      over_ = true;
    }
    if ((script_.without >> which & 1U) != 0) {
      annulet::this_fiber::yield();
      continue;
    }
    ++result.operations[which];
    running_ = &self;
    try {
      (this->*operations_[which].run)(self);
    } catch (const broken& b) {
      require(false, b.what);
    } catch (const std::exception& e) {
      require(false, std::string(operations_[which].name) + ": " + e.what());
    }
  }
  ended_.set();
}

// --- what happens elsewhere

bool world::act() {
  ++result.steps;
  if (result.steps >= script_.steps) {
    over_ = true;
  }
  if (!handle_) {
    give_up("the hub does not end");
  }
  if (over_) {
    if (++idle_acts_ % 16 == 1) {
      ++posted_;
      handle_->post([this] {
        ++ran_;
        ended_.set();
        kill_all();
      });
    }
    if (idle_acts_ > 10'000) {
      give_up("it does not end");
    }
    return idle_acts_ > 100;
  }
  try {
    switch (dice_.below(16)) {
      case 0:
        ++posted_;
        handle_->post([this] { ++ran_; });
        break;
      case 1: {
        sockaddr_un address{};
        socklen_t size = sizeof(address);
        (void)::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
        const int client = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)::connect(client, reinterpret_cast<sockaddr*>(&address), size);
        ::close(client);
        break;
      }
      default:
        places_[dice_.below(places_.size())]->act(dice_);
    }
  } catch (const broken& b) {
    require(false, b.what);
  }
  kernel_->happened();
  return false;
}

void world::goes_round() { give_up("the hub goes round and round, and there is nothing to be had"); }

// From inside the hub, where nothing can be thrown.
void world::give_up(const char* why) const {
  std::fprintf(stderr, "%s: %s %s\nANNULET_SIMULATION=\"%s\" shows it\n", why,
               std::to_string(result.steps).c_str(), ("steps; before: " + result.broken).c_str(),
               script_.text().c_str());
  std::_Exit(given_up);
}

void world::at_rest(std::int64_t now) {
  require(posted_ == ran_, "the hub sleeps, and what was posted has not run");
  for (const waiting* one : waiting_) {
    require(one->until_ > now, "a wait goes on after its deadline");
    require(!one->who_->killed || one->who_->killed_at + one->slack_ > now,
            "a fiber that was killed waits all the same");
    for (const pollfd& file : one->for_what_) {
      require(poll_at_once(file.fd, asked(file.events)) == 0,
              "what a fiber waits for is there, and it was not woken");
    }
  }
}

world::waiting::waiting(world& w, std::vector<pollfd> for_what, deadline until, std::int64_t slack)
    : world_(w),
      for_what_(std::move(for_what)),
      until_(until.nanoseconds()),
      slack_(slack),
      who_(w.running_) {
  if (!until.is_never()) {
    until_ = std::max(until_, w.kernel_->now()) + slack_;
  }
  world_.waiting_.push_back(this);
}

world::waiting::~waiting() {
  std::erase(world_.waiting_, this);
  world_.running_ = who_;
}

}  // namespace simulated
