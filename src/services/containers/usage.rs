//! What containers use, and their processes.

use std::{collections::HashMap, sync::Arc, time::Duration};

use api::creel as own;
use engine::{
    Engine,
    user::{UserContainer, UserUsage},
};
use model::ContainerId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::super::{status, stream::Streaming};

/// Between two messages.
const INTERVAL: Duration = Duration::from_secs(1);

/// Its processes.
pub(super) async fn top(engine: &Engine, request: own::TopRequest) -> Result<own::TopResponse, Status> {
    let user = super::find(engine, &request.container)?;
    let table = engine.processes_of_user(&user, request.arguments).await.map_err(|e| status::of_engine(&e))?;
    engine.tell_of_user(&user, "top", []);
    let row = |cells| own::top_response::Row { cells };
    Ok(own::TopResponse { titles: table.titles, rows: table.rows.into_iter().map(row).collect() })
}

/// Figures, once in a second or once; the first ones after a second too, because a rate needs two looks.
pub(super) fn stats(engine: &Engine, request: own::StatsRequest) -> Result<Streaming<own::StatsResponse>, Status> {
    let named = request.containers.iter().map(|name| super::find(engine, name)).collect::<Result<Vec<_>, _>>()?;
    let (sender, receiver) = mpsc::channel(1);
    let engine = engine.clone();
    tokio::spawn(async move {
        let mut looks = Looks::default();
        looks.message(&engine, &chosen(&engine, &named, request.all)).await;
        loop {
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = sender.closed() => return,
            }
            let message = looks.message(&engine, &chosen(&engine, &named, request.all)).await;
            if sender.send(Ok(message)).await.is_err() || !request.stream {
                return;
            }
        }
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

/// Those that were named, else all that run, newest first.
fn chosen(engine: &Engine, named: &[Arc<UserContainer>], all: bool) -> Vec<Arc<UserContainer>> {
    if !named.is_empty() {
        return named.to_vec();
    }
    engine.users().into_iter().rev().filter(|user| all || user.is_running()).collect()
}

/// What was seen before.
#[derive(Default)]
struct Looks(HashMap<ContainerId, UserUsage>);

impl Looks {
    async fn message(&mut self, engine: &Engine, users: &[Arc<UserContainer>]) -> own::StatsResponse {
        let mut seen = HashMap::new();
        let mut containers = Vec::with_capacity(users.len());
        for user in users {
            let mut stats = own::ContainerStats { id: user.id.to_string(), name: user.name(), ..Default::default() };
            if let Some(now) = engine.usage_of_user(user).await {
                fill(&mut stats, &now, self.0.get(&user.id));
                seen.insert(user.id, now);
            }
            containers.push(stats);
        }
        self.0 = seen;
        own::StatsResponse { containers }
    }
}

fn fill(stats: &mut own::ContainerStats, now: &UserUsage, before: Option<&UserUsage>) {
    stats.cpu_percent = before.map_or(0.0, |before| percent(now, before));
    stats.memory = now.memory;
    stats.memory_limit = now.memory_limit;
    stats.network_received = now.received;
    stats.network_sent = now.sent;
    stats.block_read = now.read;
    stats.block_written = now.written;
    stats.pids = now.pids;
}

/// Of one CPU.
fn percent(now: &UserUsage, before: &UserUsage) -> f64 {
    let time = now.at.saturating_duration_since(before.at).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let used = now.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1e9;
    if time > 0.0 { used / time * 100.0 } else { 0.0 }
}
