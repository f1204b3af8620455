//! Gives a pod its interface.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::io::Errno;

use super::{
    Bridge, Plug, conntrack,
    link::{Links, NewVeth},
    namespace, record,
    state::Order,
};
use crate::{AttachRequest, Attached, Error, network::POD_INTERFACE};

impl Bridge {
    /// See [`crate::Network::attach`].
    pub(crate) fn attach(&self, request: &AttachRequest<'_>) -> Result<Attached, Error> {
        self.attach_at(request, None)
    }

    /// The same with an address that the pod wants.
    pub fn attach_at(&self, request: &AttachRequest<'_>, ip: Option<std::net::IpAddr>) -> Result<Attached, Error> {
        let namespace =
            File::open(request.netns).map_err(|source| Error::OpenNamespace { path: request.netns.to_owned(), source })?;
        let (plug, bridge) = self.lock().reserve(&self.config, Order { pod: request.pod, ports: request.ports, ip })?;
        let plugged = conntrack::forget(&plug.forwards)
            .and_then(|()| self.plug_in(&plug, bridge, &namespace))
            .and_then(|()| namespace::configure(&namespace, request.netns, &plug, &self.config.reach))
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

    fn plug_in(&self, plug: &Plug, bridge: u32, namespace: &File) -> Result<(), Error> {
        let mut links = Links::open()?;
        let mut veth = NewVeth {
            name: &plug.interface,
            bridge,
            peer_name: POD_INTERFACE,
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
