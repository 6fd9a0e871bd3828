// An HTTP server that is asked how long it takes: GET /7?2 is answered "answer 7" after two seconds. It ends
// with the test.
#pragma once

#include "program.hpp"

#include <stdexcept>
#include <string>

#include <arpa/inet.h>

namespace annulet::test {

class slow_http_server {
 public:
  slow_http_server() : run_("/usr/bin/python3", {"-c", source, host()}), port_(run_.line().value_or("")) {
    if (port_.empty()) {
      throw std::runtime_error("the HTTP server does not start: " + run_.wait().err);
    }
  }

  // As http://127.0.0.1:80/ is one.
  [[nodiscard]] std::string url() const { return "http://" + host() + ":" + port_ + "/"; }

 private:
  static std::string host() {
    const sockaddr_in address = loopback(0);
    char text[INET_ADDRSTRLEN];
    return ::inet_ntop(AF_INET, &address.sin_addr, text, sizeof text);
  }

  static constexpr const char* source = R"(
import asyncio, sys

async def answer(reader, writer):
    try:
        request = await reader.readuntil(b"\r\n\r\n")
        number, _, seconds = request.split()[1][1:].partition(b"?")
        await asyncio.sleep(float(seconds))
        body = b"answer " + number
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass  # the client has gone
    writer.close()

async def serve():
    server = await asyncio.start_server(answer, sys.argv[1], 0, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(serve())
)";

  program run_;
  std::string port_;
};

}  // namespace annulet::test
