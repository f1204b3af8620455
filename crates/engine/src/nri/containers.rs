//! Events of containers, each container's in its order: whoever tells of one holds its [`Told`].

use std::sync::Arc;

use ::nri::{Adjusting, Outcome, Updates, proto as p};
use model::{ContainerId, ErrorKind, Resources};

use super::{ContainerFacts, Member, Members, message, resources};
use crate::{
    Inner,
    container::Container,
    error::{About, Error, Step},
    pod::Pod,
    undo::Undo,
};

/// How much of a container's end plugins know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing.
    #[default]
    Alive,
    /// That it has ended.
    Stopped,
}

impl Members {
    /// Asks what is to be different about a container. Those who were asked hear of its end if it comes to nothing.
    pub(crate) async fn create_container(&self, pod: &Pod, facts: ContainerFacts<'_>, undo: &mut Undo) -> Result<Outcome, Error> {
        self.ask_create(facts.id, message::pod(pod), facts.message(), undo).await
    }

    async fn ask_create(
        &self,
        id: ContainerId,
        pod: p::PodSandbox,
        container: p::Container,
        undo: &mut Undo,
    ) -> Result<Outcome, Error> {
        let (members, of, gone) = (self.clone(), pod.clone(), container.clone());
        undo.push("NRI plugins", move || async move {
            let (pod, container) = (Some(of), Some(gone));
            members.tell(&p::StopContainerRequest { pod: pod.clone(), container: container.clone() }).await;
            members.tell(&p::RemoveContainerRequest { pod, container }).await;
            Ok(())
        });
        self.adjust(pod, container).await.step(id, "ask the NRI plugins")
    }

    async fn adjust(&self, pod: p::PodSandbox, container: p::Container) -> Result<Outcome, ::nri::Error> {
        let pristine = p::ValidateContainerAdjustmentRequest {
            pod: Some(pod.clone()),
            container: Some(container.clone()),
            ..Default::default()
        };
        let mut adjusting = Adjusting::new(pod, container);
        for member in self.0.iter() {
            if let Some(answer) = member.ask(adjusting.request()).await? {
                adjusting.add(&member.id, answer)?;
            }
        }
        let outcome = adjusting.finish();
        self.validate(pristine, &outcome).await?;
        Ok(outcome)
    }

    async fn validate(&self, mut request: p::ValidateContainerAdjustmentRequest, outcome: &Outcome) -> Result<(), ::nri::Error> {
        let validators: Vec<_> = self.0.iter().filter(|member| member.validates()).collect();
        if validators.is_empty() {
            return Ok(());
        }
        let asked = self.0.iter().filter(|member| member.plugin.wants(p::Event::CreateContainer));
        request.plugins = asked
            .map(|member| p::PluginInstance { name: member.plugin.name().into(), index: member.plugin.index().into() })
            .collect();
        request.adjust = Some(outcome.adjust.clone());
        request.update.clone_from(&outcome.updates);
        request.owners = Some(outcome.owners.clone());
        for verdict in futures_util::future::join_all(validators.into_iter().map(|member| member.validate(&request))).await {
            verdict?;
        }
        Ok(())
    }

    /// Tells that a container is no more.
    pub(crate) async fn container_removed(&self, container: &Container) {
        let (pod, container) = messages(container);
        self.tell(&p::RemoveContainerRequest { pod, container }).await;
    }
}

impl Member {
    /// One that is gone by now does not: pods go on without it.
    fn validates(&self) -> bool {
        self.plugin.wants(p::Event::ValidateContainerAdjustment) && !self.plugin.is_closed()
    }

    /// A validator that cannot be asked has not said yes.
    async fn validate(&self, request: &p::ValidateContainerAdjustmentRequest) -> Result<(), ::nri::Error> {
        let plugin = self.id.clone();
        match self.ask(request).await? {
            Some(answer) if answer.reject => Err(::nri::Error::Rejected { plugin, reason: answer.reason }),
            Some(_) => Ok(()),
            None => Err(::nri::Error::Rejected { plugin, reason: "it did not answer".to_owned() }),
        }
    }
}

fn messages(container: &Container) -> (Option<p::PodSandbox>, Option<p::Container>) {
    (Some(message::pod(&container.pod)), Some(message::container(container)))
}

impl Inner {
    /// Asks plugins that have joined while a container was being made. What they want to be different comes too late: the
    /// client tries again, and they are asked in time.
    pub(crate) async fn ask_late(self: &Arc<Self>, late: &Members, container: &Container, undo: &mut Undo) -> Result<(), Error> {
        let (id, pod, message) = (container.id, message::pod(&container.pod), message::container(container));
        let outcome = late.ask_create(id, pod, message, undo).await?;
        if !outcome.changes_nothing() {
            let why = "an NRI plugin joined while the container was being made, and wants it to be different: try again";
            return Err(Error::new(ErrorKind::Unavailable, About::Container(id), why));
        }
        self.update_others(About::Container(id), outcome.updates).await?;
        self.evict("CreateContainer", outcome.evict);
        Ok(())
    }

    /// Tells that a container was made.
    pub(crate) async fn tell_created(&self, container: &Container) {
        if let Some(members) = self.nri.members() {
            let (pod, container) = messages(container);
            members.tell(&p::PostCreateContainerRequest { pod, container }).await;
        }
    }

    /// Asks whether a container may start.
    pub(crate) async fn ask_start(&self, container: &Container) -> Result<(), Error> {
        let Some(members) = self.nri.members() else { return Ok(()) };
        let id = container.id;
        let (pod, container) = messages(container);
        members.ask(&p::StartContainerRequest { pod, container }).await.map(drop).step(id, "ask the NRI plugins")
    }

    /// Tells that a container was started.
    pub(crate) async fn tell_started(&self, container: &Container) {
        if let Some(members) = self.nri.members() {
            let (pod, container) = messages(container);
            members.tell(&p::PostStartContainerRequest { pod, container }).await;
        }
    }

    /// Tells, once, that a container has ended; waits if it is being told.
    pub(crate) async fn tell_stopped(self: &Arc<Self>, container: &Arc<Container>) {
        let mut told = container.told.lock().await;
        if *told == Told::Stopped {
            return;
        }
        *told = Told::Stopped;
        let Some(members) = self.nri.members() else { return };
        let (pod, message) = messages(container);
        let answers = members.tell(&p::StopContainerRequest { pod, container: message }).await;
        let mut updates = Updates::default();
        for (plugin, answer) in answers {
            if let Err(error) = updates.add(plugin, answer.update, Vec::new()) {
                tracing::warn!(container = %container.id.short(), error = crate::chain(&error), "NRI");
            }
        }
        self.apply_updates("StopContainer", updates.into_parts().0).await;
    }

    /// The same in a task of its own: an exit does not wait for plugins.
    pub(crate) fn tell_stopped_later(self: &Arc<Self>, container: &Arc<Container>) {
        if self.nri.members().is_none() {
            return;
        }
        let (inner, container) = (self.clone(), container.clone());
        self.nri.spawn(async move { inner.tell_stopped(&container).await });
    }

    /// Asks how a container's limits are to be updated. What plugins want of others is done at once.
    pub(crate) async fn ask_update(self: &Arc<Self>, container: &Arc<Container>, wanted: Resources) -> Result<Resources, Error> {
        let Some(members) = self.nri.members() else { return Ok(wanted) };
        let id = container.id;
        let (pod, message) = messages(container);
        let request = p::UpdateContainerRequest { pod, container: message, linux_resources: Some(resources::message(&wanted)) };
        let answers = members.ask(&request).await.step(id, "ask the NRI plugins")?;
        let mut updates = Updates::default();
        for (plugin, answer) in answers {
            updates.add(plugin, answer.update, answer.evict).step(id, "ask the NRI plugins")?;
        }
        let own = updates.take(&id.to_string());
        let (others, evict) = updates.into_parts();
        self.update_others(About::Container(id), others).await?;
        self.evict("UpdateContainer", evict);
        let Some(own) = own else { return Ok(wanted) };
        Ok(wanted.updated_by(&resources::wanted(&own).step(id, "ask the NRI plugins")?))
    }

    /// Tells that a container's limits were updated.
    pub(crate) async fn tell_updated(&self, container: &Container) {
        if let Some(members) = self.nri.members() {
            let (pod, container) = messages(container);
            members.tell(&p::PostUpdateContainerRequest { pod, container }).await;
        }
    }

    /// Carries out what plugins want of other containers in the course of a request, which fails if that cannot be done.
    pub(crate) async fn update_others(self: &Arc<Self>, about: About, updates: Vec<p::ContainerUpdate>) -> Result<(), Error> {
        match self.apply_updates("CreateContainer", updates).await.first() {
            None => Ok(()),
            Some(failed) => {
                let why = format!("the NRI plugins' update of container {} failed; see the log", failed.container_id);
                Err(Error::new(ErrorKind::FailedPrecondition, about, why))
            }
        }
    }
}
