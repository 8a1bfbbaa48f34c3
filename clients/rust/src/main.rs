//! A client of the mesh in Rust: finds an agent by its name, and shows what a team needs to know of a call.
//!
//!     target/debug/client --registry 127.0.0.1:7070 --agent echo

mod mesh;

/// What is made of the contracts.
pub mod weft {
    pub mod v1 {
        tonic::include_proto!("weft.v1");
    }
    pub mod echo {
        pub mod v1 {
            tonic::include_proto!("weft.echo.v1");
        }
    }
}

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{json, Value};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use weft::echo::v1::echo_service_client::EchoServiceClient;
use weft::echo::v1::{RepeatRequest, SayRequest, SayResponse};

const CALLERS: usize = 4;

type Echo = EchoServiceClient<Channel>;
type Outcome = Result<(), Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Outcome {
    let registry = option("--registry", "127.0.0.1:7070");
    let agent = option("--agent", "echo");
    let span = Duration::from_secs_f64(option("--for", "3").parse()?);
    let mut echo = EchoServiceClient::new(mesh::find(&registry, &agent).await?);
    unary(&echo).await?;
    stream(&mut echo).await?;
    deadline(&echo).await?;
    error_details(&echo).await?;
    trace(&mut echo).await?;
    calls(&echo, span).await
}

async fn unary(echo: &Echo) -> Outcome {
    let said = say(echo, SayRequest { text: "hello".into(), ..Default::default() }, 10_000).await?;
    tell("unary", json!({"text": said.text, "instance": said.instance}));
    Ok(())
}

async fn stream(echo: &mut Echo) -> Outcome {
    let request = RepeatRequest { text: "again".into(), count: 3, ..Default::default() };
    let mut answers = echo.repeat(within(request, Duration::from_secs(5))).await?.into_inner();
    let mut numbers = Vec::new();
    while let Some(answer) = answers.message().await? {
        numbers.push(answer.number);
    }
    tell("stream", json!({"numbers": numbers}));
    Ok(())
}

async fn deadline(echo: &Echo) -> Outcome {
    let delay = Some(prost_types::Duration { seconds: 5, nanos: 0 });
    let began = Instant::now();
    let failed = say(echo, SayRequest { delay, ..Default::default() }, 200).await.err();
    let took = began.elapsed().as_millis() as u64;
    tell("deadline", json!({"code": failed.map(|status| name(status.code())), "ms": took}));
    Ok(())
}

/// Reads what an error says beyond its code: the reason for programs, and which field is wrong.
async fn error_details(echo: &Echo) -> Outcome {
    let request = SayRequest { fail_with: 99, ..Default::default() };
    let failed = say(echo, request, 5_000).await.err().ok_or("the call should have failed")?;
    let mut found = json!({"code": name(failed.code())});
    if let Some(info) = failed.get_details_error_info() {
        found["reason"] = info.reason.into();
        found["domain"] = info.domain.into();
    }
    if let Some(bad) = failed.get_details_bad_request() {
        for violation in bad.field_violations {
            found["field"] = violation.field.into();
            found["description"] = violation.description.into();
        }
    }
    tell("error", found);
    Ok(())
}

/// Sends a W3C trace context, as instrumentation of OpenTelemetry would: the agent's span joins the trace.
async fn trace(echo: &mut Echo) -> Outcome {
    let trace_id = format!("{:032x}", rand::random::<u128>());
    let traceparent = format!("00-{trace_id}-{:016x}-01", rand::random::<u64>());
    let mut request = within(SayRequest::default(), Duration::from_secs(5));
    request.metadata_mut().insert("traceparent", traceparent.parse()?);
    echo.say(request).await?;
    tell("trace", json!({"trace_id": trace_id}));
    Ok(())
}

#[derive(Default, serde::Serialize)]
struct Tally {
    made: u32,
    failed: Vec<String>,
    instances: BTreeMap<String, u32>,
}

/// Goes on calling while a replica dies.
async fn calls(echo: &Echo, span: Duration) -> Outcome {
    let end = Instant::now() + span;
    let tally = Arc::new(Mutex::new(Tally::default()));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (echo, tally) = (echo.clone(), tally.clone());
        callers.spawn(async move {
            while Instant::now() < end {
                let delay = Some(prost_types::Duration { seconds: 0, nanos: 10_000_000 });
                let request = SayRequest { text: "x".into(), delay, ..Default::default() };
                let outcome = say(&echo, request, 5_000).await;
                count(&mut tally.lock().unwrap(), outcome);
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended?;
    }
    tell("calls", serde_json::to_value(&*tally.lock().unwrap())?);
    Ok(())
}

fn count(tally: &mut Tally, outcome: Result<SayResponse, Status>) {
    tally.made += 1;
    match outcome {
        Err(status) => tally.failed.push(status.to_string()),
        Ok(said) => {
            let times = tally.instances.entry(said.instance.clone()).or_default();
            *times += 1;
            if *times == 1 {
                tell("met", json!({"instance": said.instance}));
            }
        }
    }
}

/// Say is declared idempotent: it may be made again when a replica dies.
async fn say(echo: &Echo, message: SayRequest, milliseconds: u64) -> Result<SayResponse, Status> {
    let answer = mesh::repeatable(Duration::from_millis(milliseconds), |left| {
        let (mut echo, request) = (echo.clone(), within(message.clone(), left));
        async move { echo.say(request).await }
    });
    Ok(answer.await?.into_inner())
}

/// A call always has a deadline: the agent is told of it, and this side keeps it.
fn within<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// The canonical name of a code, as every other language has it.
fn name(code: Code) -> String {
    let words = format!("{code:?}");
    let mut found = String::new();
    for letter in words.chars() {
        if letter.is_uppercase() && !found.is_empty() {
            found.push('_');
        }
        found.extend(letter.to_uppercase());
    }
    found
}

/// Prints a result as a line of JSON.
fn tell(step: &str, mut found: Value) {
    found["step"] = step.into();
    println!("{found}");
}

fn option(name: &str, otherwise: &str) -> String {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1).unwrap_or_else(|| otherwise.to_owned())
}
