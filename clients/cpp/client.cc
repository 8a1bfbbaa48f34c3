// A client of the mesh in C++: finds an agent by its name, and shows what a team needs to know of a call.
//
//   export GRPC_XDS_BOOTSTRAP_CONFIG=$(weft xds-bootstrap)
//   build/client --agent echo
#include <chrono>
#include <cstdio>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "weft/echo/v1/echo.grpc.pb.h"

namespace {

using namespace std::chrono_literals;
using weft::echo::v1::EchoService;
using weft::echo::v1::RepeatRequest;
using weft::echo::v1::RepeatResponse;
using weft::echo::v1::SayRequest;
using weft::echo::v1::SayResponse;
using Clock = std::chrono::steady_clock;

constexpr int kCallers = 4;

// A line of JSON, of text, numbers and what is JSON already.
class Line {
 public:
  explicit Line(const std::string& step) { text("step", step); }
  Line& text(const std::string& key, const std::string& value) { return json(key, quoted(value)); }
  Line& number(const std::string& key, long value) { return json(key, std::to_string(value)); }
  Line& json(const std::string& key, const std::string& value) {
    content_ += (content_.empty() ? "" : ", ") + quoted(key) + ": " + value;
    return *this;
  }
  void tell() const { std::cout << "{" + content_ + "}\n" << std::flush; }

  static std::string quoted(const std::string& value) {
    std::string found = "\"";
    for (unsigned char letter : value) {
      char escaped[8];
      if (letter < 0x20 || letter == '"' || letter == '\\') {
        std::snprintf(escaped, sizeof escaped, "\\u%04x", letter);
        found += escaped;
      } else {
        found += static_cast<char>(letter);
      }
    }
    return found + "\"";
  }

 private:
  std::string content_;
};

// The canonical name of a code, as every other language has it.
std::string NameOf(grpc::StatusCode code) {
  static const char* const names[] = {
      "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
      "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
      "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"};
  return names[code];
}

class Client {
 public:
  explicit Client(std::shared_ptr<grpc::Channel> channel) : echo_(EchoService::NewStub(channel)) {}

  void Unary() {
    SayRequest request;
    request.set_text("hello");
    SayResponse said;
    // The first call waits until the agent is found.
    Check(Say(request, 10s, &said));
    Line("unary").text("text", said.text()).text("instance", said.instance()).tell();
  }

  void Stream() {
    RepeatRequest request;
    request.set_text("again");
    request.set_count(3);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + 5s);
    auto answers = echo_->Repeat(&context, request);
    std::string numbers;
    for (RepeatResponse answer; answers->Read(&answer);) {
      numbers += (numbers.empty() ? "" : ", ") + std::to_string(answer.number());
    }
    Check(answers->Finish());
    Line("stream").json("numbers", "[" + numbers + "]").tell();
  }

  void Deadline() {
    SayRequest request;
    request.mutable_delay()->set_seconds(5);
    auto began = Clock::now();
    grpc::Status failed = Say(request, 200ms, nullptr);
    auto took = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - began);
    Line("deadline").text("code", NameOf(failed.error_code())).number("ms", took.count()).tell();
  }

  // Reads what an error says beyond its code: the reason for programs, and which field is wrong.
  void ErrorDetails() {
    SayRequest request;
    request.set_fail_with(99);
    grpc::Status failed = Say(request, 5s, nullptr);
    Line found("error");
    found.text("code", NameOf(failed.error_code()));
    google::rpc::Status status;
    status.ParseFromString(failed.error_details());
    for (const auto& detail : status.details()) {
      google::rpc::ErrorInfo info;
      google::rpc::BadRequest bad;
      if (detail.UnpackTo(&info)) {
        found.text("reason", info.reason()).text("domain", info.domain());
      } else if (detail.UnpackTo(&bad)) {
        for (const auto& violation : bad.field_violations()) {
          found.text("field", violation.field()).text("description", violation.description());
        }
      }
    }
    found.tell();
  }

  // Sends a W3C trace context, as instrumentation of OpenTelemetry would: the agent's span joins the trace.
  void Trace() {
    std::random_device random;
    char ids[49];
    for (int at = 0; at < 48; at += 8) std::snprintf(ids + at, 9, "%08x", random());
    std::string trace_id(ids, 32);
    SayResponse said;
    Check(Say(SayRequest(), 5s, &said, "00-" + trace_id + "-" + std::string(ids + 32, 16) + "-01"));
    Line("trace").text("trace_id", trace_id).tell();
  }

  // Goes on calling. Say is declared idempotent, so the channel itself tries it again when a replica dies.
  void Calls(std::chrono::duration<double> span) {
    auto end = Clock::now() + span;
    std::mutex mutex;
    long made = 0;
    std::string failed;
    std::map<std::string, long> instances;
    auto caller = [&] {
      SayRequest request;
      request.set_text("x");
      request.mutable_delay()->set_nanos(10'000'000);
      while (Clock::now() < end) {
        SayResponse said;
        grpc::Status status = Say(request, 5s, &said);
        std::lock_guard<std::mutex> lock(mutex);
        ++made;
        if (!status.ok()) {
          failed += (failed.empty() ? "" : ", ") + Line::quoted(status.error_message());
        } else if (++instances[said.instance()] == 1) {
          Line("met").text("instance", said.instance()).tell();
        }
      }
    };
    std::vector<std::thread> callers;
    for (int number = 0; number < kCallers; ++number) callers.emplace_back(caller);
    for (auto& each : callers) each.join();
    std::string counted;
    for (const auto& [name, count] : instances) {
      counted += (counted.empty() ? "" : ", ") + Line::quoted(name) + ": " + std::to_string(count);
    }
    Line("calls").number("made", made).json("failed", "[" + failed + "]").json("instances", "{" + counted + "}").tell();
  }

 private:
  // A call always has a deadline.
  grpc::Status Say(const SayRequest& request, std::chrono::milliseconds within, SayResponse* said,
                   const std::string& traceparent = "") {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + within);
    if (!traceparent.empty()) context.AddMetadata("traceparent", traceparent);
    SayResponse ignored;
    return echo_->Say(&context, request, said != nullptr ? said : &ignored);
  }

  static void Check(const grpc::Status& status) {
    if (!status.ok()) throw std::runtime_error(NameOf(status.error_code()) + ": " + status.error_message());
  }

  std::unique_ptr<EchoService::Stub> echo_;
};

std::string Option(const std::vector<std::string>& arguments, const std::string& name, const std::string& otherwise) {
  for (size_t at = 0; at + 1 < arguments.size(); ++at) {
    if (arguments[at] == name) return arguments[at + 1];
  }
  return otherwise;
}

}  // namespace

int main(int count, char** values) {
  std::vector<std::string> arguments(values + 1, values + count);
  // The registry tells where the agent is and which of its methods may be tried again; it is asked no more per call.
  auto channel = grpc::CreateChannel("xds:///" + Option(arguments, "--agent", "echo"), grpc::InsecureChannelCredentials());
  Client client(channel);
  try {
    client.Unary();
    client.Stream();
    client.Deadline();
    client.ErrorDetails();
    client.Trace();
    client.Calls(std::chrono::duration<double>(std::stod(Option(arguments, "--for", "3"))));
  } catch (const std::exception& failed) {
    std::cerr << failed.what() << "\n";
    return 1;
  }
  return 0;
}
