// libuv's loop in a fiber, as it comes: it waits by epoll_pwait, beside a fiber that wants to run, too.

#include "support/beats.hpp"
#include "support/folder.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/fiber.hpp>
#include <annulet/runtime/this_fiber.hpp>

#include <doctest/doctest.h>
#include <uv.h>

#include <array>
#include <csignal>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include <pthread.h>

namespace {

using namespace annulet::test;
using namespace std::chrono_literals;
using annulet::this_fiber::sleep_for;
using steady = std::chrono::steady_clock;

// One that has ended leaves nothing open, not even a handle that nobody has closed.
struct loop {
  loop() { REQUIRE(uv_loop_init(&its) == 0); }
  ~loop() { CHECK(uv_loop_close(&its) == 0); }
  loop(const loop&) = delete;
  loop& operator=(const loop&) = delete;

  int run() { return uv_run(&its, UV_RUN_DEFAULT); }

  uv_loop_t its;
};

template <class Handle>
void close(Handle& handle) {
  uv_close(reinterpret_cast<uv_handle_t*>(&handle), nullptr);
}

void in_a_fiber(const std::function<void(loop&)>& scene) {
  const annulet::hub home;
  const beats beside;
  annulet::spawn([&] {
    loop one;
    scene(one);
  }).get();
  CHECK(beside.kept_up());
}

// What a callback gets at: the function that is its handle's, or its request's, data.
using callback = std::function<void()>;

template <class Of>
void call(Of* its) {
  (*static_cast<callback*>(its->data))();
}

uv_buf_t room(uv_handle_t*, std::size_t size) { return {new char[size], size}; }
void make_room(uv_handle_t* handle, std::size_t size, uv_buf_t* into) { *into = room(handle, size); }

// Echoes, and closes at the end.
void echo(uv_stream_t* stream, ssize_t size, const uv_buf_t* from) {
  if (size > 0) {
    auto* const request = new uv_write_t;
    request->data = from->base;
    const uv_buf_t part{from->base, static_cast<std::size_t>(size)};
    CHECK(uv_write(request, stream, &part, 1, [](uv_write_t* done, int status) {
            CHECK(status == 0);
            delete[] static_cast<char*>(done->data);
            delete done;
          }) == 0);
    return;
  }
  delete[] from->base;
  if (size < 0) {
    uv_close(reinterpret_cast<uv_handle_t*>(stream),
             [](uv_handle_t* handle) { delete reinterpret_cast<uv_tcp_t*>(handle); });
  }
}

}  // namespace

TEST_CASE("libuv: timers come in order, none early, and repeat until they are stopped") {
  in_a_fiber([](loop& one) {
    std::vector<int> order;
    std::array<uv_timer_t, 4> timers;
    std::array<callback, 4> callbacks;
    const std::array<std::uint64_t, 4> times{30, 0, 20, 10};
    const auto start = steady::now();
    uv_update_time(&one.its);  // it counts from there
    for (std::size_t i = 0; i < timers.size(); ++i) {
      callbacks[i] = [&, i] {
        // In whole milliseconds, from one that has begun.
        CHECK(steady::now() - start + 1ms >= std::chrono::milliseconds(times[i]));
        order.push_back(static_cast<int>(times[i]));
        close(timers[i]);
      };
      uv_timer_init(&one.its, &timers[i]);
      timers[i].data = &callbacks[i];
      uv_timer_start(&timers[i], call<uv_timer_t>, times[i], 0);
    }
    uv_timer_t repeating;
    int beats = 0;
    callback beat = [&] {
      if (++beats == 10) {
        close(repeating);
      }
    };
    uv_timer_init(&one.its, &repeating);
    repeating.data = &beat;
    uv_timer_start(&repeating, call<uv_timer_t>, 5, 5);
    CHECK(one.run() == 0);
    CHECK(order == std::vector<int>{0, 10, 20, 30});
    CHECK(beats == 10);
    CHECK(steady::now() - start >= 49ms);
  });
}

TEST_CASE("libuv: what is stopped goes on later") {
  in_a_fiber([](loop& one) {
    uv_timer_t timer;
    int times = 0;
    callback stop = [&] {
      ++times;
      uv_stop(&one.its);
    };
    uv_timer_init(&one.its, &timer);
    timer.data = &stop;
    uv_timer_start(&timer, call<uv_timer_t>, 1, 1);
    CHECK(one.run() != 0);
    CHECK(one.run() != 0);
    CHECK(times == 2);
    close(timer);
    CHECK(one.run() == 0);
  });
}

TEST_CASE("libuv: a server echoes to clients that block in fibers") {
  in_a_fiber([](loop& one) {
    constexpr int clients = 20;
    uv_tcp_t server;
    sockaddr_in address = loopback(0);
    int size = sizeof address;
    uv_tcp_init(&one.its, &server);
    REQUIRE(uv_tcp_bind(&server, reinterpret_cast<sockaddr*>(&address), 0) == 0);
    REQUIRE(uv_tcp_getsockname(&server, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    int accepted = 0;
    server.data = &accepted;
    const auto accept = [](uv_stream_t* on, int status) {
      REQUIRE(status == 0);
      auto* const connection = new uv_tcp_t;
      uv_tcp_init(on->loop, connection);
      REQUIRE(uv_accept(on, reinterpret_cast<uv_stream_t*>(connection)) == 0);
      REQUIRE(uv_read_start(reinterpret_cast<uv_stream_t*>(connection), make_room, echo) == 0);
      if (++*static_cast<int*>(on->data) == clients) {
        close(*on);
      }
    };
    REQUIRE(uv_listen(reinterpret_cast<uv_stream_t*>(&server), 100, accept) == 0);
    int right = 0;
    for (int i = 0; i < clients; ++i) {
      annulet::spawn([&, i] {
        const descriptor mine(require_ok(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
        require_ok(::connect(mine.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), "connect");
        const std::string sent(10'000, static_cast<char>('a' + i));
        require_ok(static_cast<int>(::write(mine.get(), sent.data(), sent.size())), "write");
        std::string got(sent.size(), '\0');
        right += ::recv(mine.get(), got.data(), got.size(), MSG_WAITALL) == 10'000 && got == sent;
      }).detach();
    }
    CHECK(one.run() == 0);
    CHECK(right == clients);
  });
}

TEST_CASE("libuv: another thread and another fiber wake a loop") {
  in_a_fiber([](loop& one) {
    uv_async_t wake;
    int woken = 0;
    callback count = [&] {
      if (++woken == 2) {
        close(wake);
      }
    };
    uv_async_init(&one.its, &wake, call<uv_async_t>);
    wake.data = &count;
    std::thread other([&] {
      std::this_thread::sleep_for(20ms);
      uv_async_send(&wake);
    });
    auto fiber = annulet::spawn([&] {
      sleep_for(60ms);
      uv_async_send(&wake);
    });
    CHECK(one.run() == 0);
    other.join();
    fiber.join();
    CHECK(woken == 2);
  });
}

TEST_CASE("libuv: its own threads work while the fiber waits") {
  in_a_fiber([](loop& one) {
    struct job {
      uv_work_t request;
      std::thread::id by;
      bool done;
    };
    std::array<job, 20> jobs{};
    const auto start = steady::now();
    for (job& each : jobs) {
      each.request.data = &each;
      uv_queue_work(
          &one.its, &each.request,
          [](uv_work_t* work) {
            ::usleep(10'000);
            static_cast<job*>(work->data)->by = std::this_thread::get_id();
          },
          [](uv_work_t* work, int status) { static_cast<job*>(work->data)->done = status == 0; });
    }
    CHECK(one.run() == 0);
    CHECK(steady::now() - start >= 50ms);  // there are four
    for (const job& each : jobs) {
      CHECK(each.done);
      CHECK(each.by != std::this_thread::get_id());
    }
  });
}

TEST_CASE("libuv: files are written and read, with and without waiting, and names are looked up") {
  const folder its;
  const std::string path = its / "file";
  in_a_fiber([&](loop& one) {
    uv_fs_t request;
    const auto open = [&](int flags) {
      const int fd = uv_fs_open(&one.its, &request, path.c_str(), flags, 0600, nullptr);
      uv_fs_req_cleanup(&request);
      REQUIRE(fd >= 0);
      return fd;
    };
    char text[] = "written";
    const uv_buf_t from{text, 7};
    const descriptor written(open(O_WRONLY | O_CREAT));
    CHECK(uv_fs_write(&one.its, &request, written.get(), &from, 1, -1, nullptr) == 7);
    uv_fs_req_cleanup(&request);
    const descriptor read(open(O_RDONLY));
    char got[8] = {};
    const uv_buf_t into{got, 7};
    ssize_t result = 0;
    callback done = [&] {
      result = request.result;
      uv_fs_req_cleanup(&request);
    };
    request.data = &done;
    REQUIRE(uv_fs_read(&one.its, &request, read.get(), &into, 1, 0, call<uv_fs_t>) == 0);
    CHECK(one.run() == 0);
    CHECK(result == 7);
    CHECK(std::strcmp(got, "written") == 0);

    uv_getaddrinfo_t question;
    const auto answered = [](uv_getaddrinfo_t* asked, int status, addrinfo* answer) {
      CHECK(status == 0);
      CHECK(answer != nullptr);
      uv_freeaddrinfo(answer);
      asked->data = asked;
    };
    question.data = nullptr;
    REQUIRE(uv_getaddrinfo(&one.its, &question, answered, "127.0.0.1", "80", nullptr) == 0);
    CHECK(one.run() == 0);
    CHECK(question.data == &question);
  });
}

TEST_CASE("libuv: signals come, whoever sends them") {
  in_a_fiber([](loop& one) {
    uv_signal_t signals;
    int times = 0;
    callback count = [&] {
      if (++times == 2) {
        close(signals);
      }
    };
    uv_signal_init(&one.its, &signals);
    signals.data = &count;
    uv_signal_start(
        &signals,
        [](uv_signal_t* its, int number) {
          CHECK(number == SIGUSR1);
          call(its);
        },
        SIGUSR1);
    const pthread_t thread = pthread_self();
    auto fiber = annulet::spawn([] {
      sleep_for(10ms);
      std::raise(SIGUSR1);
    });
    std::thread other([&] {
      std::this_thread::sleep_for(40ms);
      pthread_kill(thread, SIGUSR1);
    });
    CHECK(one.run() == 0);
    other.join();
    fiber.join();
    CHECK(times == 2);
  });
}

TEST_CASE("libuv: a child is started, talked to, and seen to end") {
  in_a_fiber([](loop& one) {
    uv_process_t child;
    uv_pipe_t in;
    uv_pipe_t out;
    uv_pipe_init(&one.its, &in, 0);
    uv_pipe_init(&one.its, &out, 0);
    std::array<uv_stdio_container_t, 2> streams{};
    streams[0].flags = static_cast<uv_stdio_flags>(UV_CREATE_PIPE | UV_READABLE_PIPE);
    streams[0].data.stream = reinterpret_cast<uv_stream_t*>(&in);
    streams[1].flags = static_cast<uv_stdio_flags>(UV_CREATE_PIPE | UV_WRITABLE_PIPE);
    streams[1].data.stream = reinterpret_cast<uv_stream_t*>(&out);
    char shell[] = "sh";
    char flag[] = "-c";
    char script[] = "cat; sleep 0.05; exit 3";
    char* arguments[] = {shell, flag, script, nullptr};
    uv_process_options_t options{};
    options.file = shell;
    options.args = arguments;
    options.stdio_count = static_cast<int>(streams.size());
    options.stdio = streams.data();
    std::int64_t status = -1;
    child.data = &status;
    options.exit_cb = [](uv_process_t* its, std::int64_t exit, int signal) {
      *static_cast<std::int64_t*>(its->data) = signal == 0 ? exit : -signal;
      close(*its);
    };
    REQUIRE(uv_spawn(&one.its, &child, &options) == 0);
    char text[] = "piped";
    const uv_buf_t from{text, 5};
    CHECK(uv_try_write(reinterpret_cast<uv_stream_t*>(&in), &from, 1) == 5);
    close(in);
    std::string got;
    out.data = &got;
    uv_read_start(reinterpret_cast<uv_stream_t*>(&out), make_room,
                  [](uv_stream_t* its, ssize_t size, const uv_buf_t* piece) {
                    if (size > 0) {
                      static_cast<std::string*>(its->data)->append(piece->base,
                                                                   static_cast<std::size_t>(size));
                    } else if (size < 0) {
                      close(*its);
                    }
                    delete[] piece->base;
                  });
    CHECK(one.run() == 0);
    CHECK(status == 3);
    CHECK(got == "piped");
  });
}
