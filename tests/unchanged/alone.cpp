// What unchanged_test does at once, one after the other and without annulet. Says what came of each call.
// usage: alone CONNINFO URL REDIS_HOST REDIS_PORT CALLS
#include "clients.hpp"

#include <cstdlib>
#include <iostream>

int main(int argc, char** argv) {
  using namespace annulet::test;
  if (argc != 6) {
    return 64;
  }
  curl_global_init(CURL_GLOBAL_DEFAULT);
  const addresses where{argv[1], argv[2], argv[3], std::atoi(argv[4])};
  for (int i = 0; i < std::atoi(argv[5]); ++i) {
    const auto one = make_client(where, i);
    const outcome came = one->ask(1);
    std::cout << (came == one->right() ? "right" : came.text) << std::endl;
  }
  curl_global_cleanup();
}
