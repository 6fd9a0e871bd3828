// Calls that move bytes, and what may end them at nearly the same time. Each has one outcome; every byte that
// was written is read once, whatever came between; and nothing is left in the kernel.
//
// ANNULET_RACE_ROUNDS says how many rounds for each call and each way of ending it.

#include "support/io_races.hpp"
#include "support/numbered_stream.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

using namespace annulet::test;
using annulet::deadline;
using annulet::file_ref;

namespace {

using dice = oracle::dice;

// One of the calls. The bytes are to be read into, or written; what it says of them is kept in `moved`, also
// where it throws.
struct transfer {
  const char* name;
  use direction;
  std::vector<medium> files;
  void (*call)(file_ref file, std::span<char> bytes, dice& d, deadline until, std::size_t& moved);
};

const std::vector<medium> sockets = {medium::tcp, medium::unix_stream, medium::unix_datagram, medium::udp};
const std::vector<medium> every_file = {medium::tcp,  medium::unix_stream, medium::unix_datagram, medium::udp,
                                        medium::pipe, medium::pty,         medium::disk};
const std::vector<medium> streams = {medium::tcp, medium::unix_stream, medium::pipe, medium::pty,
                                     medium::disk};

// Cuts them into pieces, empty ones among them.
std::vector<iovec> pieces(std::span<char> bytes, dice& d) {
  std::vector<iovec> cut;
  while (cut.size() < 4) {
    const std::size_t size = cut.size() == 3 ? bytes.size() : d.below(bytes.size() + 1);
    cut.push_back({bytes.data(), size});
    bytes = bytes.subspan(size);
  }
  return cut;
}

// Unix sockets without a name have no address to send to.
annulet::socket_address peer_of(int socket) {
  annulet::socket_address peer;
  require_ok(::getpeername(socket, peer.room(), peer.room_size()), "getpeername");
  return peer.family() == AF_INET ? peer : annulet::socket_address();
}

const transfer read_call{"read", use::reading, every_file,
                         [](file_ref file, std::span<char> bytes, dice&, deadline until, std::size_t& moved) {
                           moved = annulet::read(file, bytes, until);
                         }};
const transfer readv_call{"readv", use::reading, every_file,
                          [](file_ref file, std::span<char> bytes, dice& d, deadline until,
                             std::size_t& moved) { moved = annulet::readv(file, pieces(bytes, d), until); }};
const transfer recv_call{"recv", use::reading, sockets,
                         [](file_ref file, std::span<char> bytes, dice&, deadline until, std::size_t& moved) {
                           moved = annulet::recv(file, bytes, until);
                         }};
const transfer recvfrom_call{
    "recvfrom", use::reading, sockets,
    [](file_ref file, std::span<char> bytes, dice&, deadline until, std::size_t& moved) {
      annulet::socket_address sender;
      moved = annulet::recvfrom(file, bytes, sender, {}, until);
    }};
const transfer read_exactly_call{
    "read_exactly", use::reading, streams,
    [](file_ref file, std::span<char> bytes, dice&, deadline until, std::size_t& moved) {
      const std::size_t all = annulet::read_exactly(file, bytes, until, &moved);
      REQUIRE(all == moved);
    }};
const transfer write_call{"write", use::writing, every_file,
                          [](file_ref file, std::span<char> bytes, dice&, deadline until,
                             std::size_t& moved) { moved = annulet::write(file, bytes, until); }};
const transfer writev_call{
    "writev", use::writing, every_file,
    [](file_ref file, std::span<char> bytes, dice& d, deadline until, std::size_t& moved) {
      moved = annulet::writev(file, pieces(bytes, d), until);
    }};
const transfer send_call{"send", use::writing, sockets,
                         [](file_ref file, std::span<char> bytes, dice&, deadline until, std::size_t& moved) {
                           moved = annulet::send(file, bytes, until);
                         }};
const transfer sendto_call{
    "sendto", use::writing, sockets,
    [](file_ref file, std::span<char> bytes, dice&, deadline until, std::size_t& moved) {
      moved = annulet::sendto(file, bytes, peer_of(file.number()), {}, until);
    }};
const transfer write_all_call{
    "write_all", use::writing, streams,
    [](file_ref file, std::span<char> bytes, dice&, deadline until, std::size_t& moved) {
      annulet::write_all(file, bytes, until, &moved);
      REQUIRE(moved == bytes.size());
    }};

// A stream, and the number on which calls are made. It is kept for some rounds where nothing closes it, so
// that what is remembered of it from call to call has its part.
struct place {
  place(medium m, use u, bool blocking) : stream(m, u, blocking) {}

  subject& subject_for(ending how, dice& d) {
    const bool destroyed = how == ending::destructor;
    if (!on || on->closed() || d.one_in(8) || (destroyed && !on->owned())) {
      on = std::make_unique<subject>(stream.duplicate(), destroyed || d.one_in(2));
    }
    return *on;
  }

  numbered_stream stream;
  std::unique_ptr<subject> on{};
};

// All that the call works on, blocking and not.
std::vector<std::unique_ptr<place>> open_places(const transfer& what) {
  std::vector<std::unique_ptr<place>> opened;
  for (const medium m : what.files) {
    for (const bool blocking : {true, false}) {
      opened.push_back(std::make_unique<place>(m, what.direction, blocking));
    }
  }
  return opened;
}

// How much memory the call is given. A datagram that is read fits.
std::size_t choose_size(const transfer& what, medium m, dice& d) {
  if (is_datagrams(m)) {
    return what.direction == use::reading ? largest_datagram : 1 + d.below(largest_datagram);
  }
  return 1 + d.below(d.one_in(4) ? 8192 : 700);
}

constexpr char untouched = 'u';

end one_round(contest& c, const transfer& what, numbered_stream& stream, subject& on, ending how) {
  stream.prepare();
  const std::size_t size = choose_size(what, stream.what(), c.dice);
  const bool reads = what.direction == use::reading;
  std::vector<char> bytes = reads ? std::vector<char>(size, untouched) : stream.next(size);
  if (reads && stream.what() == medium::disk) {
    stream.peer_acts(c.dice.below(2 * size));
  }
  std::vector<racer> peers;
  for (std::size_t left = 1 + c.dice.below(3); left > 0; --left) {
    const std::size_t step = 1 + c.dice.below(size);
    peers.push_back({[&stream, step] { stream.peer_acts(step); }, racer::place::anywhere});
  }
  const call_record record = c.run(
      how, on,
      [&](deadline until, call_record& r) {
        what.call(on.ref(), bytes, c.dice, until, r.moved);
        if (reads) {
          stream.take(std::span(bytes).first(r.moved));
        } else {
          stream.wrote(r.moved);
        }
      },
      std::move(peers), [&] { stream.peer_acts(size); });
  if (record.what != end::done) {
    REQUIRE((record.moved == 0 || what.call == read_exactly_call.call || what.call == write_all_call.call));
    if (reads) {
      stream.take(std::span(bytes).first(record.moved));
    } else {
      stream.wrote(record.moved);
    }
  }
  if (reads) {
    stream.settle();
    // Only what was reported is there, also now that all else has been read.
    REQUIRE(std::all_of(bytes.begin() + static_cast<std::ptrdiff_t>(record.moved), bytes.end(),
                        [](char b) { return b == untouched; }));
  }
  stream.require_no_complaint();
  REQUIRE(stream.flags_are_as_before());
  return record.what;
}

void races(const transfer& what) {
  const std::size_t descriptors = open_descriptors();
  {
    contest c(what.name);
    const auto places = open_places(what);
    ends_by_file by_file;
    do {
      for (const ending how : endings) {
        outcomes counts(std::string(what.name) + " against " + ending_names[static_cast<std::size_t>(how)]);
        for (std::uint64_t round = 0; round < c.rounds; ++round) {
          place& at = *places[round % places.size()];
          const numbered_stream& stream = at.stream;
          CAPTURE(stream.name());
          CAPTURE(round);
          subject& on = at.subject_for(how, c.dice);
          const end e = one_round(c, what, at.stream, on, how);
          c.require_nothing_left(on.owned() && !on.closed());
          counts.count(name_of(e));
          by_file.count(stream.name(), stream.may_wait(), e);
        }
        counts.check(c.rounds, possible_ends(how));
      }
    } while (by_file.too_few_to_tell());
    by_file.check();
    c.check_ticker();
    for (const auto& at : places) {
      CAPTURE(at->stream.name());
      at->on.reset();
      at->stream.settle();
    }
  }
  CHECK(open_descriptors() == descriptors);
}

}  // namespace

TEST_CASE("a read has one outcome, and loses no byte") { races(read_call); }
TEST_CASE("a readv has one outcome, and loses no byte") { races(readv_call); }
TEST_CASE("a recv has one outcome, and loses no byte") { races(recv_call); }
TEST_CASE("a recvfrom has one outcome, and loses no byte") { races(recvfrom_call); }
TEST_CASE("a read_exactly has one outcome, and loses no byte") { races(read_exactly_call); }
TEST_CASE("a write has one outcome, and loses no byte") { races(write_call); }
TEST_CASE("a writev has one outcome, and loses no byte") { races(writev_call); }
TEST_CASE("a send has one outcome, and loses no byte") { races(send_call); }
TEST_CASE("a sendto has one outcome, and loses no byte") { races(sendto_call); }
TEST_CASE("a write_all has one outcome, and loses no byte") { races(write_all_call); }

TEST_CASE("a ticker shows that the thread is stopped now and then, and also that it was until now") {
  annulet::hub hub;
  ticker now_and_then;
  for (int i = 0; i < 3; ++i) {
    annulet::this_fiber::sleep_for(30ms);
    std::this_thread::sleep_for(100ms);
  }
  CHECK_FALSE(now_and_then.was_steady("a thread that is stopped"));
  ticker at_the_end;
  annulet::this_fiber::sleep_for(30ms);
  std::this_thread::sleep_for(100ms);
  CHECK_FALSE(at_the_end.was_steady("a thread that is stopped at the end"));
}
