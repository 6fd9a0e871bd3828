// Clients of three servers that wait by what their libraries wait by: each is asked for one thing, and
// answers after as many seconds as it is told. Nothing here knows of fibers.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <curl/curl.h>
#include <hiredis/hiredis.h>
#include <libpq-fe.h>

namespace annulet::test {

struct addresses {
  std::string conninfo;  // PostgreSQL's
  std::string url;       // an HTTP server's
  std::string redis_host;
  int redis_port;
};

struct outcome {
  bool failed;
  std::string text;  // the answer, or what the library says of the failure

  bool operator==(const outcome&) const = default;
};

// Its connection is open once it is made, and closed with it.
class client {
 public:
  client() = default;
  virtual ~client() = default;
  client(const client&) = delete;
  client& operator=(const client&) = delete;

  virtual outcome ask(int seconds) = 0;
  [[nodiscard]] virtual outcome right() const = 0;
};

class postgres_client : public client {
 public:
  postgres_client(const addresses& where, int number)
      : number_(std::to_string(number)), connection_(PQconnectdb(where.conninfo.c_str())) {}
  ~postgres_client() override { PQfinish(connection_); }

  outcome ask(int seconds) override {
    const std::string query = "select pg_sleep(" + std::to_string(seconds) + "), " + number_;
    PGresult* const result = PQexec(connection_, query.c_str());
    outcome came{true, PQerrorMessage(connection_)};
    if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1 && PQnfields(result) == 2) {
      came = {false, std::string(PQgetvalue(result, 0, 0)) + "," + PQgetvalue(result, 0, 1)};
    }
    PQclear(result);
    return came;
  }
  [[nodiscard]] outcome right() const override { return {false, "," + number_}; }

 private:
  std::string number_;
  PGconn* connection_;
};

// Connects when it is asked.
class http_client : public client {
 public:
  http_client(const addresses& where, int number)
      : number_(std::to_string(number)), url_(where.url + number_), easy_(curl_easy_init()) {
    curl_easy_setopt(easy_, CURLOPT_PROXY, "");
    curl_easy_setopt(easy_, CURLOPT_NOSIGNAL, 1L);  // as several threads need it: SIGPIPE is the process's
    curl_easy_setopt(easy_, CURLOPT_WRITEFUNCTION, append);
    curl_easy_setopt(easy_, CURLOPT_WRITEDATA, &body_);
  }
  ~http_client() override { curl_easy_cleanup(easy_); }

  outcome ask(int seconds) override {
    curl_easy_setopt(easy_, CURLOPT_URL, (url_ + "?" + std::to_string(seconds)).c_str());
    body_.clear();
    long status = 0;
    if (const CURLcode code = curl_easy_perform(easy_); code != CURLE_OK) {
      return {true, curl_easy_strerror(code)};
    }
    curl_easy_getinfo(easy_, CURLINFO_RESPONSE_CODE, &status);
    return {false, std::to_string(status) + " " + body_};
  }
  [[nodiscard]] outcome right() const override { return {false, "200 answer " + number_}; }

 private:
  static std::size_t append(char* data, std::size_t, std::size_t size, void* body) {
    static_cast<std::string*>(body)->append(data, size);
    return size;
  }

  std::string number_;
  std::string url_;
  std::string body_;
  CURL* easy_;
};

// Waits for a list that nobody pushes to, until the server says so.
class redis_client : public client {
 public:
  redis_client(const addresses& where, int number)
      : number_(std::to_string(number)), context_(redisConnect(where.redis_host.c_str(), where.redis_port)) {}
  ~redis_client() override { redisFree(context_); }

  outcome ask(int seconds) override {
    return answer_to("BLPOP list-" + number_ + " " + std::to_string(seconds));
  }
  [[nodiscard]] outcome right() const override { return {false, "nil"}; }

  outcome answer_to(const std::string& command) {
    auto* const reply = static_cast<redisReply*>(redisCommand(context_, command.c_str()));
    if (reply == nullptr) {
      return {true, context_->errstr};
    }
    outcome came{reply->type == REDIS_REPLY_ERROR, text_of(*reply)};
    freeReplyObject(reply);
    return came;
  }

 private:
  static std::string text_of(const redisReply& reply) {
    switch (reply.type) {
      case REDIS_REPLY_NIL:
        return "nil";
      case REDIS_REPLY_INTEGER:
        return std::to_string(reply.integer);
      case REDIS_REPLY_ARRAY: {
        std::string all;
        for (std::size_t i = 0; i < reply.elements; ++i) {
          all += (i == 0 ? "" : " ") + text_of(*reply.element[i]);
        }
        return all;
      }
      default:
        return {reply.str, static_cast<std::size_t>(reply.len)};
    }
  }

  std::string number_;
  redisContext* context_;
};

constexpr int kinds_of_clients = 3;
constexpr int kind_of_curl = 1;

inline std::unique_ptr<client> make_client(const addresses& where, int number) {
  switch (number % kinds_of_clients) {
    case 0:
      return std::make_unique<postgres_client>(where, number);
    case kind_of_curl:
      return std::make_unique<http_client>(where, number);
    default:
      return std::make_unique<redis_client>(where, number);
  }
}

}  // namespace annulet::test
