//! Finding an agent without xDS, which tonic does not have: the registry tells each change, the channel balances.

use std::collections::HashSet;
use std::future::Future;
use std::time::{Duration, Instant};

use tokio::{sync::mpsc, time};
use tonic::transport::{channel::Change, Channel, Endpoint};
use tonic::{Code, Status};

use crate::weft::v1::registry_service_client::RegistryServiceClient;
use crate::weft::v1::{
    resolve_request::Target, Instance, InstanceState, ResolveRequest, WatchRequest,
};

const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(100); // doubled up to the last
const LAST_PAUSE: Duration = Duration::from_secs(2);

type Changes = mpsc::Sender<Change<String, Endpoint>>;

/// A channel to an agent, over all its instances in service, followed until the channel is dropped.
///
/// Fails with NOT_FOUND when nothing of that name was ever registered.
pub async fn find(registry: &str, agent: &str) -> Result<Channel, Status> {
    let (channel, changes) = Channel::balance_channel(16);
    let mut follower = Follower { agent: agent.to_owned(), known: HashSet::new(), changes };
    let mut client = connect(registry).await?;
    let target = Some(Target::Agent(agent.to_owned()));
    let found = client.resolve(ResolveRequest { target }).await?.into_inner();
    let registry = registry.to_owned();
    tokio::spawn(async move {
        follower.take(&found.instances).await;
        follower.follow(&registry).await;
    });
    Ok(channel)
}

async fn connect(registry: &str) -> Result<RegistryServiceClient<Channel>, Status> {
    // A registry that hangs is noticed by pings.
    let endpoint = Endpoint::from_shared(format!("http://{registry}"))
        .map_err(|wrong| Status::invalid_argument(wrong.to_string()))?
        .connect_timeout(CONNECT_WITHIN)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(CONNECT_WITHIN);
    let channel = endpoint.connect().await.map_err(|lost| Status::unavailable(lost.to_string()))?;
    Ok(RegistryServiceClient::new(channel))
}

struct Follower {
    agent: String,
    known: HashSet<String>,
    changes: Changes,
}

impl Follower {
    /// Calls go on with what is known while the registry is away.
    async fn follow(mut self, registry: &str) {
        let mut pause = FIRST_PAUSE;
        let channel = self.changes.clone();
        loop {
            tokio::select! {
                () = channel.closed() => return, // nobody calls any more
                ended = self.watch(registry, &mut pause) => {
                    eprintln!("registry lost, watching again: {ended:?}");
                }
            }
            time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    async fn watch(&mut self, registry: &str, pause: &mut Duration) -> Result<(), Status> {
        let mut client = connect(registry).await?;
        let request = WatchRequest { agents: vec![self.agent.clone()], after_revision: 0 };
        let mut answers = client.watch(request).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            *pause = FIRST_PAUSE;
            for agent in answer.agents {
                self.take(&agent.instances).await;
            }
        }
        Ok(())
    }

    async fn take(&mut self, instances: &[Instance]) {
        let serving = |one: &&Instance| {
            matches!(one.state(), InstanceState::Serving | InstanceState::Degraded)
        };
        let now: HashSet<String> =
            instances.iter().filter(serving).map(|one| one.address.clone()).collect();
        for gone in self.known.difference(&now) {
            let _ = self.changes.send(Change::Remove(gone.clone())).await; // an error: nobody calls any more
        }
        for new in now.difference(&self.known) {
            if let Ok(endpoint) = Endpoint::from_shared(format!("http://{new}")) {
                let endpoint = endpoint.connect_timeout(CONNECT_WITHIN);
                let _ = self.changes.send(Change::Insert(new.clone(), endpoint)).await;
            }
        }
        self.known = now;
    }
}

/// Makes a call that may run twice, which its contract says by `idempotency_level`, and makes it again at another
/// instance where it found nobody. Where there is xDS, the registry sees to that.
///
/// `call` is told how much time is left of the deadline.
pub async fn repeatable<T, C>(
    deadline: Duration,
    mut call: impl FnMut(Duration) -> C,
) -> Result<T, Status>
where
    C: Future<Output = Result<T, Status>>,
{
    let end = Instant::now() + deadline;
    let mut pause = FIRST_PAUSE / 4;
    loop {
        // tonic keeps a deadline where there is an instance, by CANCELLED; where there is none it
        // would wait for ever.
        let outcome = time::timeout_at(end.into(), call(end - Instant::now())).await;
        match outcome.unwrap_or_else(|_| Err(Status::cancelled(""))) {
            Err(failed) if failed.code() == Code::Cancelled && Instant::now() >= end => {
                return Err(Status::deadline_exceeded("the deadline has passed"));
            }
            Err(failed) if found_nobody(&failed) && Instant::now() + pause < end => {
                time::sleep(pause).await;
            }
            done => return done,
        }
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// A connection that breaks under a call is UNKNOWN or CANCELLED in tonic, not UNAVAILABLE, and has a cause.
fn found_nobody(failed: &Status) -> bool {
    let broken = matches!(failed.code(), Code::Unknown | Code::Cancelled | Code::Internal);
    failed.code() == Code::Unavailable || (broken && std::error::Error::source(failed).is_some())
}
