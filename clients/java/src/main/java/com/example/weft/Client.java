package com.example.weft;

import com.google.gson.Gson;
import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.util.Durations;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import weft.echo.v1.Echo.RepeatRequest;
import weft.echo.v1.Echo.SayRequest;
import weft.echo.v1.Echo.SayResponse;
import weft.echo.v1.EchoServiceGrpc;
import weft.echo.v1.EchoServiceGrpc.EchoServiceBlockingStub;

/**
 * A client of the mesh in Java: finds an agent by its name, and shows what a team needs to know of a call.
 *
 * <pre>
 *   export GRPC_XDS_BOOTSTRAP_CONFIG=$(weft xds-bootstrap)
 *   java -jar target/client.jar --agent echo
 * </pre>
 */
public final class Client {
  private static final int CALLERS = 4;

  private final EchoServiceBlockingStub echo;

  private Client(EchoServiceBlockingStub echo) {
    this.echo = echo;
  }

  public static void main(String[] arguments) throws Exception {
    String agent = option(arguments, "--agent", "echo");
    double seconds = Double.parseDouble(option(arguments, "--for", "3"));
    // The registry tells where the agent is and which of its methods may be tried again; it is asked no more per call.
    ManagedChannel channel =
        Grpc.newChannelBuilder("xds:///" + agent, InsecureChannelCredentials.create()).build();
    try {
      Client client = new Client(EchoServiceGrpc.newBlockingStub(channel));
      client.unary();
      client.stream();
      client.deadline();
      client.errorDetails();
      client.trace();
      client.calls(seconds);
    } finally {
      channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
    }
  }

  private void unary() {
    // The first call waits until the agent is found.
    SayResponse said = within(10_000).say(SayRequest.newBuilder().setText("hello").build());
    tell("unary", Map.of("text", said.getText(), "instance", said.getInstance()));
  }

  private void stream() {
    RepeatRequest request = RepeatRequest.newBuilder().setText("again").setCount(3).build();
    List<Integer> numbers = new ArrayList<>();
    within(5_000).repeat(request).forEachRemaining(answer -> numbers.add(answer.getNumber()));
    tell("stream", Map.of("numbers", numbers));
  }

  private void deadline() {
    long began = System.nanoTime();
    StatusRuntimeException failed =
        failureOf(within(200), SayRequest.newBuilder().setDelay(Durations.fromSeconds(5)).build());
    long took = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - began);
    tell("deadline", Map.of("code", failed.getStatus().getCode().name(), "ms", took));
  }

  /** Reads what an error says beyond its code: the reason for programs, and which field is wrong. */
  private void errorDetails() throws InvalidProtocolBufferException {
    StatusRuntimeException failed =
        failureOf(within(5_000), SayRequest.newBuilder().setFailWith(99).build());
    Map<String, Object> found = new LinkedHashMap<>();
    found.put("code", failed.getStatus().getCode().name());
    for (Any detail : StatusProto.fromThrowable(failed).getDetailsList()) {
      if (detail.is(ErrorInfo.class)) {
        ErrorInfo info = detail.unpack(ErrorInfo.class);
        found.put("reason", info.getReason());
        found.put("domain", info.getDomain());
      } else if (detail.is(BadRequest.class)) {
        for (BadRequest.FieldViolation violation : detail.unpack(BadRequest.class).getFieldViolationsList()) {
          found.put("field", violation.getField());
          found.put("description", violation.getDescription());
        }
      }
    }
    tell("error", found);
  }

  /** Sends a W3C trace context, as instrumentation of OpenTelemetry would: the agent's span joins the trace. */
  private void trace() {
    byte[] ids = new byte[24];
    new SecureRandom().nextBytes(ids);
    String traceId = HexFormat.of().formatHex(ids, 0, 16);
    Metadata headers = new Metadata();
    headers.put(
        Metadata.Key.of("traceparent", Metadata.ASCII_STRING_MARSHALLER),
        "00-" + traceId + "-" + HexFormat.of().formatHex(ids, 16, 24) + "-01");
    within(5_000)
        .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers))
        .say(SayRequest.getDefaultInstance());
    tell("trace", Map.of("trace_id", traceId));
  }

  /** Goes on calling. Say is declared idempotent, so the channel itself tries it again when a replica dies. */
  private void calls(double seconds) throws InterruptedException {
    long end = System.nanoTime() + (long) (seconds * 1e9);
    AtomicInteger made = new AtomicInteger();
    List<String> failed = Collections.synchronizedList(new ArrayList<>());
    Map<String, Integer> instances = new ConcurrentHashMap<>();
    SayRequest request = SayRequest.newBuilder().setText("x").setDelay(Durations.fromMillis(10)).build();
    Runnable caller = () -> {
      while (System.nanoTime() < end) {
        made.incrementAndGet();
        try {
          String instance = within(5_000).say(request).getInstance();
          if (instances.merge(instance, 1, Integer::sum) == 1) {
            tell("met", Map.of("instance", instance));
          }
        } catch (StatusRuntimeException error) {
          failed.add(error.getStatus().toString());
        }
      }
    };
    List<Thread> callers = new ArrayList<>();
    for (int number = 0; number < CALLERS; number++) {
      callers.add(new Thread(caller));
      callers.get(number).start();
    }
    for (Thread each : callers) {
      each.join();
    }
    tell("calls", Map.of("made", made.get(), "failed", failed, "instances", instances));
  }

  /** A call always has a deadline. */
  private EchoServiceBlockingStub within(long milliseconds) {
    return echo.withDeadlineAfter(milliseconds, TimeUnit.MILLISECONDS);
  }

  private static StatusRuntimeException failureOf(EchoServiceBlockingStub echo, SayRequest request) {
    try {
      echo.say(request);
    } catch (StatusRuntimeException expected) {
      return expected;
    }
    throw new IllegalStateException("the call should have failed");
  }

  /** Prints a result as a line of JSON. */
  private static synchronized void tell(String step, Map<String, ?> found) {
    Map<String, Object> line = new LinkedHashMap<>(Map.of("step", step));
    line.putAll(found);
    System.out.println(new Gson().toJson(line));
  }

  private static String option(String[] arguments, String name, String otherwise) {
    int at = List.of(arguments).indexOf(name);
    return at >= 0 && at + 1 < arguments.length ? arguments[at + 1] : otherwise;
  }
}
