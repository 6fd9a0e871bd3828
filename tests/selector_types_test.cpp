// What can be registered, what keys carry, and the mapping: the typed shell over the selector.
#include "support/apart.hpp"
#include "support/selecting.hpp"
#include "support/texts.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/selector/selector.hpp>

#include <doctest/doctest.h>

#include <any>
#include <array>
#include <chrono>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <ranges>
#include <set>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

using namespace std::chrono_literals;
using namespace annulet::test;
using annulet::basic_selector;
using annulet::hub;
using annulet::io_event;
using annulet::key_error;
using annulet::selector;

namespace {

// As a user would write one: no base class, no int inside that can be reached.
struct connection {
  explicit connection(int descriptor) : fd(descriptor) {}
  connection(const connection&) = delete;
  int fileno() const { return fd; }
  int fd;
};

struct asks_without_const {
  int fd = -1;
  int fileno() { return fd; }
};

struct returns_long {
  long fileno() const { return 0; }
};

template <class S, class F>
concept can_register = requires(S& sel, F&& file) {
  sel.register_(std::forward<F>(file), io_event::read);
};

static_assert(can_register<selector, int>);
static_assert(can_register<selector, const int&>);
static_assert(can_register<selector, connection&>);
static_assert(can_register<selector, const connection&>);
static_assert(can_register<selector, asks_without_const&>);
static_assert(!can_register<selector, const asks_without_const&>);
static_assert(!can_register<selector, connection>, "a temporary would dangle");
static_assert(!can_register<selector, const connection>);
static_assert(!can_register<selector, returns_long&>);
static_assert(!can_register<selector, long>);
static_assert(!can_register<selector, const char*>);
static_assert(!can_register<selector, std::string&>);
static_assert(!std::is_copy_constructible_v<selector> && !std::is_move_constructible_v<selector>);
static_assert(std::is_same_v<annulet::default_selector, basic_selector<std::any>>);
static_assert(sizeof(selector::key_type) == sizeof(void*));
static_assert(std::is_nothrow_copy_constructible_v<selector::key_type>);
static_assert(std::ranges::input_range<selector::mapping>);
static_assert(std::is_base_of_v<std::out_of_range, key_error>);

}  // namespace

TEST_CASE("an object is given back by its own type only, and a const one as const only") {
  annulet::hub hub;
  selector sel;
  const socket_pair pair = make_socket_pair();
  connection open(pair.first.get());
  const connection fixed(pair.second.get());
  const auto key = sel.register_(open, io_event::read);
  const auto fixed_key = sel.register_(fixed, io_event::read);
  CHECK(key->get<connection>() == &open);
  CHECK(key->get<const connection>() == &open);
  CHECK(key->get<descriptor>() == nullptr);
  CHECK(fixed_key->get<connection>() == nullptr);
  CHECK(fixed_key->get<const connection>() == &fixed);
}

TEST_CASE("an object whose fileno() became -1 is found by identity in every call") {
  annulet::hub hub;
  basic_selector<int> sel;
  socket_pair pair = make_socket_pair();
  connection gone(pair.first.get());
  connection never_registered(-1);
  const auto key = sel.register_(gone, io_event::read, 1);
  pair.first.close();
  gone.fd = -1;
  CHECK(sel.get_key(gone) == key);
  CHECK(sel.get_map().contains(gone));
  CHECK(sel.get_map()[gone] == key);
  CHECK(!sel.get_map().contains(never_registered));
  CHECK_THROWS_AS((void)sel.get_key(never_registered), std::invalid_argument);
  const auto changed = sel.modify(gone, io_event::write, 2);
  CHECK(changed->fd == key->fd);
  CHECK(changed->get<connection>() == &gone);
  CHECK(sel.unregister(gone) == changed);
  CHECK(!sel.get_map().contains(gone));
}

TEST_CASE("objects of different types at one address are different objects") {
  annulet::hub hub;
  selector sel;
  socket_pair pair = make_socket_pair();
  struct outer {
    connection inner;
    int fileno() const { return inner.fd; }
  } object{connection(pair.first.get())};
  sel.register_(object, io_event::read);
  object.inner.fd = -1;
  CHECK_THROWS_AS(sel.unregister(object.inner), std::invalid_argument);
  CHECK(sel.unregister(object)->get<outer>() == &object);
}

TEST_CASE("a modify by the bare number keeps the object") {
  annulet::hub hub;
  basic_selector<int> sel;
  socket_pair pair = make_socket_pair();
  connection object(pair.first.get());
  sel.register_(object, io_event::read, 1);
  const auto key = sel.modify(object.fd, both, 2);
  CHECK(key->get<connection>() == &object);
  pair.first.close();
  object.fd = -1;
  REQUIRE(sel.get_map().contains(object));
  CHECK(sel.unregister(object) == key);
}

TEST_CASE("keys are equal where the registration is the same") {
  annulet::hub hub;
  basic_selector<int> sel;
  const socket_pair pair = make_socket_pair();
  const auto first = sel.register_(pair.first, io_event::read, 1);
  const auto second = sel.register_(pair.second, io_event::read, 1);
  CHECK(first == sel.get_key(pair.first));
  CHECK(first != second);
  const auto modified = sel.modify(pair.first, io_event::read, 1);
  CHECK(modified != first);
  sel.unregister(pair.first);
  CHECK(sel.register_(pair.first, io_event::read, 1) != modified);
  CHECK(!basic_selector<int>::key_type());
  CHECK(basic_selector<int>::key_type() == basic_selector<int>::key_type());
}

TEST_CASE("a key outlives unregister, close, the selector and the hub") {
  basic_selector<std::unique_ptr<int>>::key_type unregistered, closed, destroyed;
  std::vector<basic_selector<std::unique_ptr<int>>::ready_type> ready;
  const socket_pair pair = make_socket_pair();
  const socket_pair other = make_socket_pair();
  {
    annulet::hub hub;
    basic_selector<std::unique_ptr<int>> sel;
    basic_selector<std::unique_ptr<int>> second;
    sel.register_(pair.first, io_event::write, std::make_unique<int>(1));
    closed = sel.register_(pair.second, io_event::write, std::make_unique<int>(2));
    destroyed = second.register_(other.first, io_event::write, std::make_unique<int>(3));
    unregistered = sel.unregister(pair.first);
    ready = second.select();
    sel.close();
    CHECK(*closed->data == 2);
  }
  CHECK(*unregistered->data == 1);
  CHECK(unregistered->events == io_event::write);
  CHECK(closed->fd == pair.second.get());
  CHECK(*destroyed->data == 3);
  REQUIRE(ready.size() == 1);
  CHECK(ready[0].key == destroyed);
  std::thread([key = std::move(unregistered)] { CHECK(*key->data == 1); }).join();
}

TEST_CASE("data that can only be moved is carried, changed in place and destroyed once") {
  annulet::hub hub;
  struct counted {
    explicit counted(int* destroyed) : count(destroyed) {}
    counted(counted&& other) noexcept : count(std::exchange(other.count, nullptr)) {}
    counted& operator=(counted&&) = delete;
    ~counted() {
      if (count != nullptr) {
        ++*count;
      }
    }
    int* count;
    std::array<int, 14> more{};
  };
  int destroyed = 0;
  const socket_pair pair = make_socket_pair();
  {
    basic_selector<counted> sel;
    sel.register_(pair.first, io_event::write, counted(&destroyed));
    auto ready = sel.select();
    ready[0].key->data.more[3] = 5;
    CHECK(sel.get_key(pair.first)->data.more[3] == 5);
    sel.modify(pair.first, io_event::read, counted(&destroyed));
    CHECK(destroyed == 0);
    ready.clear();
    CHECK(destroyed == 1);
    CHECK_THROWS_AS(sel.register_(pair.first, io_event::read, counted(&destroyed)), key_error);
    CHECK(destroyed == 2);
    sel.unregister(pair.first);
    CHECK(destroyed == 3);
    sel.register_(pair.first, io_event::write, counted(&destroyed));
  }
  CHECK(destroyed == 4);
}

namespace {

// Data that lets another descriptor go when it is destroyed.
struct keeps_another {
  selector* sel;
  int other;
  ~keeps_another() {
    if (sel->get_map().contains(other)) {
      sel->unregister(other);
    }
  }
};

// Three keys whose data let each other go, given up by the body. 0 where the selector is whole after it.
template <class Body>
int give_up(Body&& body) {
  return run_apart([&] {
    hub home;
    selector sel;
    const socket_pair first = make_socket_pair(), second = make_socket_pair();
    const std::array<int, 3> fds{first.first.get(), first.second.get(), second.first.get()};
    sel.register_(fds[0], io_event::write, std::make_shared<keeps_another>(&sel, fds[1]));
    sel.register_(fds[1], io_event::write, std::make_shared<keeps_another>(&sel, fds[2]));
    sel.register_(fds[2], io_event::write);
    if (look(sel).size() != 3) {
      return 1;
    }
    body(sel, fds);
    if (!sel.get_map().empty() || !look(sel).empty()) {
      return 2;
    }
    sel.register_(fds[1], io_event::write);
    sel.register_(fds[0], io_event::write);
    return look(sel).size() == 2 ? 0 : 3;
  });
}

}  // namespace

TEST_CASE("data whose destructor calls the selector does no harm") {
  CHECK(give_up([](selector& sel, auto& fds) { sel.unregister(fds[0]); }) == 0);
  CHECK(give_up([](selector& sel, auto& fds) { sel.unregister_all(fds); }) == 0);
  CHECK(give_up([](selector& sel, auto& fds) {
          sel.modify(fds[0], io_event::read);
          sel.unregister(fds[0]);
        }) == 0);
}

TEST_CASE("the mapping is a live view") {
  annulet::hub hub;
  basic_selector<int> sel;
  const auto map = sel.get_map();
  CHECK(map.empty());
  const socket_pair pair = make_socket_pair();
  const auto key = sel.register_(pair.first, io_event::read, 1);
  CHECK(map.size() == 1);
  CHECK(map.contains(pair.first));
  CHECK(map.contains(pair.first.get()));
  CHECK(!map.contains(pair.second));
  CHECK(!map.contains(-1));
  CHECK(map[pair.first.get()] == key);
  CHECK_THROWS_AS((void)map[pair.second], key_error);
  CHECK_THROWS_AS((void)map[999'999'999], key_error);
  sel.register_(pair.second, io_event::read, 2);
  std::map<int, int> seen;
  for (const auto& [fd, each] : map) {
    CHECK(each->fd == fd);
    seen.emplace(fd, each->data);
  }
  CHECK(seen == std::map<int, int>{{pair.first.get(), 1}, {pair.second.get(), 2}});
  sel.unregister(pair.first);
  CHECK(map.size() == 1);
  CHECK(std::ranges::distance(map) == 1);
}

TEST_CASE("iterating while registrations come and go visits each that stayed exactly once") {
  annulet::hub hub;
  basic_selector<int> sel;
  std::vector<socket_pair> pairs(60);
  std::set<int> stayed;
  for (auto& pair : pairs) {
    pair = make_socket_pair();
    stayed.insert(pair.first.get());
    sel.register_(pair.first, io_event::read);
  }
  std::multiset<int> visited;
  std::size_t step = 0;
  for (const auto& [fd, key] : sel.get_map()) {
    visited.insert(fd);
    CHECK(key->fd == fd);
    // One that was visited, one that may not have been, and one that takes a place that became free.
    for (const std::size_t victim : {step % pairs.size(), (step * 7 + 30) % pairs.size()}) {
      if (step % 3 == 0 && stayed.erase(pairs[victim].first.get()) != 0) {
        sel.unregister(pairs[victim].first);
      }
    }
    if (step < pairs.size()) {
      sel.register_(pairs[step].second, io_event::write);
    }
    ++step;
    REQUIRE(step < 1000);
  }
  for (const int fd : stayed) {
    CHECK(visited.count(fd) == 1);
  }
  for (const int fd : visited) {
    CHECK(visited.count(fd) == 1);
  }
}

TEST_CASE("a mapping outlives its selector, and an iteration its end") {
  annulet::hub hub;
  auto sel = std::make_unique<selector>();
  const socket_pair pair = make_socket_pair();
  sel->register_(pair.first, io_event::read);
  sel->register_(pair.second, io_event::read);
  const auto map = sel->get_map();
  auto at = map.begin();
  REQUIRE(at != map.end());
  const auto [fd, key] = *at;
  sel.reset();
  CHECK((*at).second == key);
  CHECK(key->fd == fd);
  ++at;
  CHECK(at == map.end());
  CHECK(map.empty());
}

TEST_CASE("the example of Python's documentation: an echo server around one selector") {
  annulet::hub hub;
  struct server {
    using accept_or_read = void (server::*)(int fd);
    annulet::basic_selector<accept_or_read> sel;
    std::vector<descriptor> connections;
    void accept(int listener) {
      connections.emplace_back(require_ok(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK), "accept4"));
      sel.register_(connections.back().fileno(), io_event::read, &server::read);
    }
    void read(int fd) {
      if (const std::string text = read_text(fd, 1000); !text.empty()) {
        write_text(fd, text);
      } else {
        sel.unregister(fd);
      }
    }
  } s;
  const tcp_listener listener = make_tcp_listener();
  s.sel.register_(listener.socket, io_event::read, &server::accept);
  auto serving = annulet::spawn([&] {
    for (;;) {
      for (const auto& [key, events] : s.sel.select()) {
        (s.*key->data)(key->fd);
      }
    }
  });
  std::string heard;
  selector client;
  {
    const descriptor socket(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
    connect_socket(socket.get(), listener.port);
    client.register_(socket, io_event::read);
    for (const std::string word : {"one ", "two ", "three"}) {
      write_text(socket.get(), word);
      REQUIRE(client.select(limit).size() == 1);
      heard += read_text(socket.get());
    }
    client.close();
  }
  CHECK(heard == "one two three");
  const auto deadline = steady::now() + limit;
  while (s.sel.get_map().size() > 1 && steady::now() < deadline) {
    annulet::this_fiber::sleep_for(1ms);
  }
  CHECK(s.sel.get_map().size() == 1);
  serving.kill();
  CHECK(serving.join(limit));
}
