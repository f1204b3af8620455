//! Gives a pod its interface.

use std::{fs::File, net::IpAddr, os::fd::AsFd, path::Path};

use model::PodId;
use rustix::io::Errno;

use super::{
    Bridge, Plug, Reach, conntrack,
    link::{Links, NewVeth, WayOut},
    namespace, record,
    state::Order,
};
use crate::{AttachRequest, Attached, Error, network::POD_INTERFACE};

/// A pod's end of its link to a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface<'a> {
    /// Its name in the pod.
    pub name: &'a str,
    /// An address that it is to have.
    pub ip: Option<IpAddr>,
    /// Whether what is for elsewhere goes by it.
    pub way_out: WayOut,
}

impl Default for Interface<'_> {
    fn default() -> Self {
        Self { name: POD_INTERFACE, ip: None, way_out: WayOut::Gateway }
    }
}

impl Bridge {
    /// See [`crate::Network::attach`].
    pub(crate) fn attach(&self, request: &AttachRequest<'_>) -> Result<Attached, Error> {
        self.attach_as(request, Interface::default())
    }

    /// The same for an interface that is not like that of all pods.
    pub fn attach_as(&self, request: &AttachRequest<'_>, interface: Interface<'_>) -> Result<Attached, Error> {
        let namespace =
            File::open(request.netns).map_err(|source| Error::OpenNamespace { path: request.netns.to_owned(), source })?;
        let (plug, bridge) =
            self.lock().reserve(&self.config, Order { pod: request.pod, ports: request.ports, ip: interface.ip })?;
        let plugged = conntrack::forget(&plug.forwards)
            .and_then(|()| self.plug_in((&plug, interface.name), bridge, &namespace))
            .and_then(|()| namespace::configure(&namespace, request.netns, &plug, self.within(interface)))
            .and_then(|()| record::encode(request.pod, &plug));
        match plugged {
            Ok(record) => {
                let mut ips = plug.ips.into_iter();
                let ip = ips.next().expect("a bridge has at least one subnet");
                Ok(Attached { ip, additional: ips.collect(), record })
            }
            Err(error) => {
                // The error that led here says more than one of the way back, which detach will meet again.
                let _undone = Links::open().and_then(|mut links| links.delete(&plug.interface));
                let _undone = self.detach(request.pod);
                Err(error)
            }
        }
    }

    /// Nobody leaves a network that has no way out.
    fn within<'i>(&self, interface: Interface<'i>) -> Interface<'i> {
        match self.config.reach {
            Reach::Inside => Interface { way_out: WayOut::None, ..interface },
            _ => interface,
        }
    }

    /// Takes a pod that lives out of the bridge; one that has nothing is fine.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn unplug(&self, pod: PodId) -> Result<(), Error> {
        let interface = self.lock().interface_of(pod);
        if let Some(interface) = interface {
            // Tens of milliseconds, so not under the lock: nobody else uses this name.
            Links::open()?.delete(&interface)?;
        }
        self.detach(pod)
    }

    /// Lets a pod that is on the bridge leave its subnets by it: its way out so far was another network.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn lead_out(&self, pod: PodId, netns: &Path, interface: &str) -> Result<(), Error> {
        let Some(plug) = self.lock().plug_of(pod).filter(|_| self.config.reach != Reach::Inside) else { return Ok(()) };
        namespace::lead_out(netns, &plug, interface)
    }

    fn plug_in(&self, (plug, inside): (&Plug, &str), bridge: u32, namespace: &File) -> Result<(), Error> {
        let mut links = Links::open()?;
        let mut veth = NewVeth {
            name: &plug.interface,
            bridge,
            peer_name: inside,
            peer_mac: plug.mac,
            peer_namespace: namespace.as_fd(),
            mtu: self.config.mtu,
        };
        let error = match links.create_veth(&veth) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let Error::Netlink { source, .. } = &error else { return Err(error) };
        if source.errno() == Some(Errno::EXIST) && links.find(&plug.interface)?.is_some() {
            // Left over from an attempt that nobody remembers: a name is a function of the pod's id.
            links.delete(&plug.interface)?;
            return links.create_veth(&veth);
        }
        match links.find(&self.config.bridge)? {
            Some(link) if link.index == bridge => Err(error),
            // Somebody removed the bridge (and perhaps made it anew) since the pod was booked.
            _ => {
                self.heal()?;
                let link = links.find(&self.config.bridge)?.ok_or(error)?;
                veth.bridge = link.index;
                links.create_veth(&veth)
            }
        }
    }
}
