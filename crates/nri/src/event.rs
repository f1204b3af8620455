//! Events: which a plugin wants, and which message goes by which method.

use crate::proto::{self as p, Event, StateChangeEvent};

/// The events that a plugin subscribes to, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Events(u32);

impl Events {
    /// Every event that there is.
    pub const ALL: Self = Self((1 << (Event::Last as u32 - 1)) - 1);

    /// From a plugin's answer to Configure: nothing means everything.
    ///
    /// # Errors
    /// The bits that are no events.
    pub fn from_mask(mask: i32) -> Result<Self, u32> {
        let mask = mask.cast_unsigned();
        match mask & !Self::ALL.0 {
            0 if mask == 0 => Ok(Self::ALL),
            0 => Ok(Self(mask)),
            unknown => Err(unknown),
        }
    }

    /// The mask of some.
    pub fn of(events: &[Event]) -> Self {
        Self(events.iter().fold(0, |mask, event| mask | bit(*event)))
    }

    /// As it stands in a message.
    pub fn mask(self) -> i32 {
        self.0.cast_signed()
    }

    /// Whether it is among them.
    pub fn contains(self, event: Event) -> bool {
        self.0 & bit(event) != 0
    }
}

fn bit(event: Event) -> u32 {
    1_u32.checked_shl((event as u32).wrapping_sub(1)).unwrap_or_default()
}

/// A request to a plugin: its method, its answer, the event that it stands for.
pub trait Rpc: prost::Message {
    /// The answer.
    type Response: prost::Message + Default;
    /// The method's name.
    const METHOD: &'static str;
    /// The event, if the request stands for one that plugins subscribe to.
    const EVENT: Option<Event>;

    /// The same for plugins of before the method was there; `None`: it always was.
    fn state_change(&self) -> Option<StateChangeEvent>;
}

macro_rules! rpc {
    ($request:ident -> $response:ident, $method:literal, $event:expr, |$self:ident| $change:expr) => {
        impl Rpc for p::$request {
            type Response = p::$response;
            const METHOD: &'static str = $method;
            const EVENT: Option<Event> = $event;

            fn state_change(&self) -> Option<StateChangeEvent> {
                let $self = self;
                $change
            }
        }
    };
}

fn of_pod(event: Event, pod: &Option<p::PodSandbox>) -> Option<StateChangeEvent> {
    Some(StateChangeEvent { event: event.into(), pod: pod.clone(), container: None })
}

fn of_container(event: Event, pod: &Option<p::PodSandbox>, container: &Option<p::Container>) -> Option<StateChangeEvent> {
    Some(StateChangeEvent { event: event.into(), pod: pod.clone(), container: container.clone() })
}

rpc!(ConfigureRequest -> ConfigureResponse, "Configure", None, |_q| None);
rpc!(SynchronizeRequest -> SynchronizeResponse, "Synchronize", None, |_q| None);
rpc!(Empty -> Empty, "Shutdown", None, |_q| None);
rpc!(RunPodSandboxRequest -> RunPodSandboxResponse, "RunPodSandbox", Some(Event::RunPodSandbox), |q| of_pod(Event::RunPodSandbox, &q.pod));
rpc!(UpdatePodSandboxRequest -> UpdatePodSandboxResponse, "UpdatePodSandbox", Some(Event::UpdatePodSandbox), |_q| None);
rpc!(PostUpdatePodSandboxRequest -> PostUpdatePodSandboxResponse, "PostUpdatePodSandbox", Some(Event::PostUpdatePodSandbox), |q| of_pod(Event::PostUpdatePodSandbox, &q.pod));
rpc!(StopPodSandboxRequest -> StopPodSandboxResponse, "StopPodSandbox", Some(Event::StopPodSandbox), |q| of_pod(Event::StopPodSandbox, &q.pod));
rpc!(RemovePodSandboxRequest -> RemovePodSandboxResponse, "RemovePodSandbox", Some(Event::RemovePodSandbox), |q| of_pod(Event::RemovePodSandbox, &q.pod));
rpc!(CreateContainerRequest -> CreateContainerResponse, "CreateContainer", Some(Event::CreateContainer), |_q| None);
rpc!(PostCreateContainerRequest -> PostCreateContainerResponse, "PostCreateContainer", Some(Event::PostCreateContainer), |q| of_container(Event::PostCreateContainer, &q.pod, &q.container));
rpc!(StartContainerRequest -> StartContainerResponse, "StartContainer", Some(Event::StartContainer), |q| of_container(Event::StartContainer, &q.pod, &q.container));
rpc!(PostStartContainerRequest -> PostStartContainerResponse, "PostStartContainer", Some(Event::PostStartContainer), |q| of_container(Event::PostStartContainer, &q.pod, &q.container));
rpc!(UpdateContainerRequest -> UpdateContainerResponse, "UpdateContainer", Some(Event::UpdateContainer), |_q| None);
rpc!(PostUpdateContainerRequest -> PostUpdateContainerResponse, "PostUpdateContainer", Some(Event::PostUpdateContainer), |q| of_container(Event::PostUpdateContainer, &q.pod, &q.container));
rpc!(StopContainerRequest -> StopContainerResponse, "StopContainer", Some(Event::StopContainer), |_q| None);
rpc!(RemoveContainerRequest -> RemoveContainerResponse, "RemoveContainer", Some(Event::RemoveContainer), |q| of_container(Event::RemoveContainer, &q.pod, &q.container));
rpc!(StateChangeEvent -> Empty, "StateChange", None, |_q| None);
rpc!(ValidateContainerAdjustmentRequest -> ValidateContainerAdjustmentResponse, "ValidateContainerAdjustment", Some(Event::ValidateContainerAdjustment), |_q| None);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks() {
        assert_eq!(Events::ALL.mask(), 0x3fff);
        assert_eq!(Events::from_mask(0), Ok(Events::ALL));
        assert_eq!(Events::from_mask(0x4000), Err(0x4000));
        assert_eq!(Events::from_mask(-1), Err(0xffff_c000));
        let some = Events::from_mask(0b1001).unwrap();
        assert!(some.contains(Event::RunPodSandbox) && some.contains(Event::CreateContainer));
        assert!(!some.contains(Event::StopPodSandbox) && !some.contains(Event::Unknown));
        assert_eq!(Events::of(&[Event::RunPodSandbox, Event::CreateContainer]), some);
    }
}
