// `echo` on annulet: a fiber a connection, in blocking style. The subject writes with write_all, as a server
// does that wants nothing lost; the same with send, and on the other engine, is printed beside it.
#include <annulet/hub/descriptor.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>

#include <array>

#include "echo.hpp"
#include "engines.hpp"

namespace bench {
namespace {

struct serving {
  echo_course& course;
  annulet::event over = {};
};

template <class Reply>
void serve_one(int fd, serving& all, Reply reply) {
  annulet::descriptor connection = annulet::descriptor::adopt(fd);
  std::array<char, echo_buffer_size> buffer;
  while (const std::size_t count = connection.recv(buffer)) {
    reply(connection, annulet::const_buffer(buffer.data(), count));
    all.course.echoed(count);
    if (all.course.over()) {
      all.over.set();
    }
  }
  fail("echo: a fiber's recv: end of file");
}

template <class Reply>
void serve_all(annulet::engine_choice engine, std::span<const int> fds, echo_course& course, Reply reply) {
  annulet::hub hub(on(engine));
  serving all{course};
  std::vector<annulet::fiber<void>> fibers;
  for (const int fd : fds) {
    fibers.push_back(annulet::spawn([fd, &all, reply] { serve_one(fd, all, reply); }));
  }
  all.over.wait();
  for (auto& fiber : fibers) {
    fiber.kill();
  }
  for (auto& fiber : fibers) {
    fiber.join();
  }
}

void write_all(annulet::descriptor& connection, annulet::const_buffer bytes) { connection.write_all(bytes); }

}  // namespace

void serve_annulet_write_all(std::span<const int> fds, echo_course& course) {
  serve_all(annulet::engine_choice::uring, fds, course, write_all);
}

void serve_annulet_on_epoll(std::span<const int> fds, echo_course& course) {
  serve_all(annulet::engine_choice::epoll, fds, course, write_all);
}

void serve_annulet_send(std::span<const int> fds, echo_course& course) {
  serve_all(annulet::engine_choice::uring, fds, course,
            [](annulet::descriptor& connection, annulet::const_buffer bytes) {
              while (bytes.size() > 0) {
                bytes = bytes.without_first(connection.send(bytes));
              }
            });
}

}  // namespace bench
