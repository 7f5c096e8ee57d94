//! Enslaves a NIC, releases it, and restores it.

use std::sync::Arc;

use bond_common::mac::Mac;
use bond_core::name::shell_word;
use nix::errno::Errno;

use super::{
    Devices, SysError,
    alias::Mark,
    dataplane::Hook,
    found::{Found, Lower},
    layer3::{Target, Unrestorable},
    netlink::{In6AddrGenMode, LinkInfo, LinkLayerType, LinkSetting},
    offload::{self, FeatureChange, Role},
    ownership::Ownership,
    topology::{self, Pairs},
};

/// The settings of a slave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnslavePlan {
    /// `None`: it keeps its own address.
    pub mac: Option<Mac>,
    /// The bond's, in bytes.
    pub mtu: u32,
    /// The hook of the bond's programs.
    pub hook: Hook,
    /// Further unicast MAC addresses that it receives.
    pub unicast: Vec<Mac>,
}

/// The role of an interface in another bond of xbond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The name of the bond.
    pub bond: String,
    /// What the interface is to the bond.
    pub role: Role,
}

/// Why an interface cannot be a slave.
#[expect(missing_docs, reason = "the sentence of each variant says what it is")]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{name}: the loopback device cannot be a slave")]
    Loopback { name: String },
    #[error("{name}: not an Ethernet device, but of type {layer}")]
    NotEthernet { name: String, layer: LinkLayerType },
    #[error("{name}: already a port of {kind} {master}; remove it first: ip link set {} nomaster", shell_word(.name))]
    HasMaster { name: String, kind: String, master: String },
    #[error(
        "{name}: already a slave of {bond}; release it first: xbond del-slave {0} {1}, or without an agent: \
         xbond down {0} --force",
        shell_word(.bond), shell_word(.name)
    )]
    SlaveOf { name: String, bond: String },
    #[error("{name}: belongs to the bond {bond}, and cannot be a slave")]
    PartOf { name: String, bond: String },
    #[error("{name}: lies above the bond {bond}, and cannot be a slave of a bond")]
    AboveBond { name: String, bond: String },
    #[error(
        "{name}: frames that it sends return to {bond} through a bridge, which is a loop; take its other \
         end or {bond} out of the bridge first"
    )]
    Loop { name: String, bond: String },
    #[error(
        "{name}: the {kind} {upper} lies above it and takes its frames, so that the bonding driver refuses it as well; delete \
         it first, and create it above the bond: ip link del {}", shell_word(.upper)
    )]
    Busy { name: String, upper: String, kind: String },
    #[error("{name}: XDP program id {program} is attached; detach it first: ip link set {} xdp off", shell_word(.name))]
    ForeignXdp { name: String, program: u32 },
    #[error(
        "{name}: its {what} could not be restored: {why}; delete it first, or leave {name} out of the bond"
    )]
    Unrestorable { name: String, what: String, why: &'static str },
    #[error(
        "{name}: its {what} cannot be moved to {bond}: {why}; or leave out --move-addresses (move_addresses)"
    )]
    Unmovable { name: String, bond: String, what: String, why: &'static str },
    #[error("{name}: {} cannot be turned {}, as datapath {} needs", change.name, on_off(change), hook)]
    FixedFeature { name: String, change: FeatureChange, hook: Hook },
}

/// The result of restoring a slave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreOutcome {
    /// Everything was restored, or nothing had to be.
    Done,
    /// The interface is gone, or another one has its ifindex: nothing was done.
    Gone,
    /// The kernel does not confirm that the interface belongs to the bond. It was not changed.
    Unconfirmed(Unconfirmed),
}

/// The state of an interface that belongs to the bond according to a file only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unconfirmed {
    /// The name of the interface.
    pub name: String,
    /// Something of it is as enslaving makes it, and was not so before.
    pub looks_enslaved: bool,
}

/// The state in which a slave is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    /// Set down, with this MAC address if one is given.
    Released(Option<Mac>),
    AsFound,
}

impl dyn Devices + '_ {
    /// Observes an interface `name` that is to be enslaved to `bond`, where that exists, changes nothing, and returns what is to be restored later:
    /// this is to be recorded before `enslave`. `owner` returns what a link is to a bond of
    /// xbond's already. The refusals are those of `bond_enslave`, and a few of our own.
    ///
    /// # Errors
    /// The interface does not exist, its state cannot be read, or the bond may not have it ([`Refusal`]). Nothing was
    /// changed.
    pub async fn observe(
        &self,
        (name, bond): (&str, Option<&str>),
        plan: &EnslavePlan,
        owner: impl Fn(&LinkInfo) -> Option<Owner>,
    ) -> Result<Found, SysError> {
        let link = self.link_by_name(name).await?;
        let master = match link.master {
            Some(ifindex) => Some(self.link_by_index(ifindex).await?.name),
            None => None,
        };
        if let Some(refusal) = refusal(&link, master, owner(&link), plan.hook) {
            return Err(refusal.into());
        }
        if let Some(refusal) = self.goes_round(&link, bond, &owner).await? {
            return Err(refusal.into());
        }
        if let Some(upper) = self.links(None).await?.into_iter().find(|upper| upper.takes_frames_of(&link)) {
            let kind = upper.kind.unwrap_or_default();
            return Err(Refusal::Busy { name: link.name, upper: upper.name, kind }.into());
        }
        let layer3 = self.layer3_of(link.ifindex, &link.name).await?;
        if let Some(Unrestorable { what, why }) = layer3.unrestorable() {
            return Err(Refusal::Unrestorable { name: link.name, what, why }.into());
        }
        let features = self.features(link.ifindex)?;
        let received = self.unicast(link.ifindex).await?;
        Ok(Found {
            ifindex: link.ifindex,
            permanent_mac: self.burned_in_mac(&link),
            mac: link.mac,
            lower: Lower::of(&link),
            // The alias of a bond that is gone has no use any more.
            alias: link.alias.clone().filter(|alias| !alias.is_mark()),
            mtu: link.mtu,
            up: link.is_up(),
            allmulti: LinkSetting::Allmulti(true).holds(&link),
            promisc: LinkSetting::Promisc(true).holds(&link),
            addr_gen_mode: link.addr_gen_mode.as_ref().map(u8::from),
            layer3: Arc::new(layer3),
            features: offload::observe(offload::prepare(Role::Slave, plan.hook), &features),
            unicast: plan.unicast.iter().copied().filter(|mac| !received.contains(mac)).collect(),
            kind: link.kind,
            name: link.name,
        })
    }

    /// Returns why frames would loop, if they would: the interface is above a bond of xbond's (`netdev_has_upper_dev`
    /// in the driver), or its other end is bridged with `bond`.
    async fn goes_round(
        &self,
        link: &LinkInfo,
        bond: Option<&str>,
        owner: &impl Fn(&LinkInfo) -> Option<Owner>,
    ) -> Result<Option<Refusal>, SysError> {
        // Hardware is above no device. IFLA_LINK of a link from another namespace is valid there.
        if link.kind.is_none() || link.is_end_of_pair() && link.link_netns.is_some() {
            return Ok(None);
        }
        let links = self.links(None).await?;
        let bonds = |pairs| {
            let found = topology::sends_by(link.ifindex, &links, pairs).into_iter().filter_map(owner);
            found.filter(|owner| matches!(owner.role, Role::Bond | Role::Port)).map(|owner| owner.bond)
        };
        let name = link.name.clone();
        if let Some(bond) = bonds(Pairs::Ignored).next() {
            return Ok(Some(Refusal::AboveBond { name, bond }));
        }
        let mut same = bonds(Pairs::Followed).filter(|found| bond == Some(found));
        Ok(same.next().map(|bond| Refusal::Loop { name, bond }))
    }

    /// Makes an observed interface a slave: sets the bond's alias first, sets the interface down, then sets no IPv6, the
    /// bond's MAC address if one is given, its MTU, and the offloads of the hook. If a step fails, all are undone. IPv4
    /// addresses stay in place, as in the driver.
    ///
    /// The slave stays down until its program is attached and `open_slave` is called: without the program, the
    /// host's own stack would answer on it for every address of the host, including bond0's.
    ///
    /// # Errors
    /// A step failed; the steps before it were undone. [`SysError::NotUndone`] if one could not be.
    pub async fn enslave(
        &self,
        found: &Found,
        plan: &EnslavePlan,
        mark: &Mark,
    ) -> Result<LinkInfo, SysError> {
        match self.set_up(found, plan, mark).await {
            Ok(link) => Ok(link),
            Err(first) => {
                let proof = Ownership::new(mark.clone(), [found.ifindex]);
                Err(first.after_undoing(self.restore(found, &proof).await))
            }
        }
    }

    async fn set_up(&self, found: &Found, plan: &EnslavePlan, mark: &Mark) -> Result<LinkInfo, SysError> {
        let ifindex = found.ifindex;
        self.set_alias(ifindex, Some(mark.alias())).await?;
        self.set(ifindex, LinkSetting::Up(false)).await?;
        self.set(ifindex, LinkSetting::AddrGenMode(In6AddrGenMode::None)).await?;
        for address in self.addresses_of(ifindex).await?.iter().filter(|address| address.ip.is_ipv6()) {
            self.del_address(address).await?;
        }
        if let Some(mac) = plan.mac {
            self.set(ifindex, LinkSetting::Mac(mac)).await?;
        }
        let link = self.set_mtu_of_member(ifindex, plan.mtu).await?;
        let mut promiscuous = offload::apply(self, &link, Role::Slave, plan.hook)?.promiscuous;
        for &mac in &plan.unicast {
            match self.add_unicast(ifindex, mac).await {
                Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => promiscuous = true,
                answer => answer?,
            }
        }
        if promiscuous {
            self.set(ifindex, LinkSetting::Promisc(true)).await?;
        }
        self.link_by_index(ifindex).await
    }

    /// Sets up a slave, or a port, after its program was attached. Allmulticast is set last: an interface that is down and
    /// lacks it was not configured completely.
    ///
    /// # Errors
    /// The kernel refuses to set the interface up, or allmulticast.
    pub async fn open_slave(&self, ifindex: u32) -> Result<LinkInfo, SysError> {
        self.set(ifindex, LinkSetting::Up(true)).await?;
        self.set(ifindex, LinkSetting::Allmulti(true)).await
    }

    /// Sets an interface down that `release` leaves down, while its program is still attached: without the
    /// program, the host's own stack would receive and answer frames.
    ///
    /// # Errors
    /// The interface cannot be read or set down. A missing or foreign interface is no error.
    pub async fn close_to_release(&self, found: &Found, proof: &Ownership) -> Result<(), SysError> {
        self.close(found, Leave::Released(None), proof).await
    }

    /// Sets an interface down before `restore`, if that requires it.
    ///
    /// # Errors
    /// The interface cannot be read or set down. A missing or foreign interface is no error.
    pub async fn close_to_restore(&self, found: &Found, proof: &Ownership) -> Result<(), SysError> {
        self.close(found, Leave::AsFound, proof).await
    }

    async fn close(&self, found: &Found, leave: Leave, proof: &Ownership) -> Result<(), SysError> {
        let Some(link) = self.find(found).await?.filter(|link| proof.holds(link)) else { return Ok(()) };
        if stays_open(&link, found, leave, &settings(found, leave)) {
            return Ok(());
        }
        self.set(link.ifindex, LinkSetting::Up(false)).await.map(drop)
    }

    /// Undoes `enslave` as the driver does at a release (`__bond_release_one`): sets the slave down, with
    /// this MAC address if one is given, and restores everything else but the addresses.
    ///
    /// # Errors
    /// The interface cannot be read, or a setting cannot be restored; the first failure is returned after all other
    /// settings were tried.
    pub async fn release(
        &self,
        found: &Found,
        mac: Option<Mac>,
        proof: &Ownership,
    ) -> Result<RestoreOutcome, SysError> {
        self.restore_as(found, Leave::Released(mac), proof).await
    }

    /// Undoes `enslave` completely: up or down, with the addresses and routes, as found. It changes nothing
    /// on an interface that is in this state.
    ///
    /// # Errors
    /// The interface cannot be read, or a setting, an address or a route cannot be restored; the first failure is
    /// returned after the others were tried.
    pub async fn restore(&self, found: &Found, proof: &Ownership) -> Result<RestoreOutcome, SysError> {
        self.restore_as(found, Leave::AsFound, proof).await
    }

    /// Tries every step; returns the first error.
    async fn restore_as(
        &self,
        found: &Found,
        leave: Leave,
        proof: &Ownership,
    ) -> Result<RestoreOutcome, SysError> {
        let Some(link) = self.find(found).await? else { return Ok(RestoreOutcome::Gone) };
        if !proof.holds(&link) {
            let looks_enslaved = looks_enslaved(&link, found);
            return Ok(RestoreOutcome::Unconfirmed(Unconfirmed { name: link.name, looks_enslaved }));
        }
        let ifindex = link.ifindex;
        let settings = settings(found, leave);
        let mut outcome = FirstError(Ok(()));
        if !stays_open(&link, found, leave, &settings) {
            outcome.note(self.set(ifindex, LinkSetting::Up(false)).await);
        }
        for setting in settings {
            outcome.note(self.set(ifindex, setting).await);
        }
        outcome.note(offload::restore(self, ifindex, &found.features));
        for &mac in &found.unicast {
            outcome.note(self.del_unicast(ifindex, mac).await);
        }
        if leave == Leave::AsFound {
            outcome.note(self.set(ifindex, LinkSetting::Up(found.up)).await);
            let target = Target::back(found.ifindex, ifindex);
            outcome.note(self.put_addresses(&found.layer3, &target).await);
            if found.up {
                outcome.note(self.put_routes(&found.layer3, &target, &link.name).await);
            }
        }
        // An interface that keeps the alias can be restored later.
        if outcome.0.is_ok() {
            outcome.note(self.return_alias(found, ifindex, proof.mark()).await);
        }
        let Err(error) = outcome.0 else { return Ok(RestoreOutcome::Done) };
        // Another device that a route names may be what is gone.
        match self.link_by_index(ifindex).await {
            Err(gone) if gone.is_gone() => Ok(RestoreOutcome::Gone),
            _ => Err(error),
        }
    }

    /// Restores the alias. This is the last step: without the bond's alias nothing shows any more that the interface
    /// is to be restored. An alias that an administrator has set in the meantime stays.
    async fn return_alias(&self, found: &Found, ifindex: u32, mark: &Mark) -> Result<(), SysError> {
        let link = self.link_by_index(ifindex).await?;
        if mark.is_on(&link) {
            self.set_alias(ifindex, found.alias.as_ref()).await?;
        }
        Ok(())
    }

    /// Returns the IPv4 addresses to an interface while the device that got them still has them, so that no route
    /// over another device loses its source address.
    ///
    /// # Errors
    /// The interface cannot be read, or does not take an address. A missing or foreign interface is no error.
    pub async fn return_addresses(&self, found: &Found, proof: &Ownership) -> Result<(), SysError> {
        let link = self.find(found).await?.filter(|link| proof.holds(link));
        let Some(link) = link else { return Ok(()) };
        self.put_ipv4_addresses(&found.layer3, &Target::back(found.ifindex, link.ifindex)).await
    }

    /// Reads the addresses, routes and other state of an interface again that is about to be enslaved. Returns `None`
    /// if nothing changed since it was observed.
    ///
    /// # Errors
    /// The state cannot be read, or contains something that could not be restored later ([`Refusal::Unrestorable`]).
    pub async fn observe_again(&self, found: &Found) -> Result<Option<Found>, SysError> {
        let layer3 = self.layer3_of(found.ifindex, &found.name).await?;
        if layer3.is_same(&found.layer3) {
            return Ok(None);
        }
        if let Some(Unrestorable { what, why }) = layer3.unrestorable() {
            return Err(Refusal::Unrestorable { name: found.name.clone(), what, why }.into());
        }
        Ok(Some(Found { layer3: Arc::new(layer3), ..found.clone() }))
    }

    /// Returns the interface that was found, if it still exists: the same ifindex and permanent MAC address. A
    /// virtual device has no permanent address; its ifindex is not reused before 2^31 others, and its kind must be
    /// the same.
    ///
    /// The interface may have been in another network namespace, and have returned with another ifindex. Another
    /// interface of its kind may have its former ifindex then, so the one with the same other end is preferred.
    ///
    /// # Errors
    /// The links cannot be read. A missing interface is no error.
    pub async fn find(&self, found: &Found) -> Result<Option<LinkInfo>, SysError> {
        let there = match self.link_by_index(found.ifindex).await {
            Ok(link) => Some(link),
            Err(error) if error.is_gone() => None,
            Err(error) => return Err(error),
        };
        let is_alike =
            |link: &LinkInfo| self.burned_in_mac(link) == found.permanent_mac && link.kind == found.kind;
        let there = there.filter(is_alike);
        if there.as_ref().is_some_and(|link| found.lower.is_none() || found.lower == Lower::of(link)) {
            return Ok(there);
        }
        let links = self.links(None).await?;
        let returned = links.into_iter().find(|link| self.is_returned(link, found));
        // Otherwise its other end may have been moved.
        Ok(returned.or(there.filter(|link| link.name == found.name)))
    }

    /// Returns whether this is the interface that was found, with any ifindex and name. Hardware is identified by its
    /// permanent MAC address, an end of a pair by the other end. An interface with a master has not just returned.
    pub fn is_returned(&self, link: &LinkInfo, found: &Found) -> bool {
        if link.kind != found.kind || link.master.is_some() {
            return false;
        }
        match found.permanent_mac {
            Some(mac) => self.burned_in_mac(link) == Some(mac),
            None => link.is_end_of_pair() && found.lower.is_some() && found.lower == Lower::of(link),
        }
    }

    fn burned_in_mac(&self, link: &LinkInfo) -> Option<Mac> {
        link.permanent_mac.or_else(|| self.permanent_mac(link.ifindex))
    }
}

/// Returns the settings of an interface that is left in this state.
fn settings(found: &Found, leave: Leave) -> Vec<LinkSetting> {
    let mut settings = vec![
        LinkSetting::Mtu(found.mtu),
        LinkSetting::Allmulti(found.allmulti),
        LinkSetting::Promisc(found.promisc),
    ];
    settings.extend(found.addr_gen_mode().map(LinkSetting::AddrGenMode));
    match leave {
        Leave::Released(mac) => settings.extend(mac.map(LinkSetting::Mac)),
        Leave::AsFound => settings.push(LinkSetting::Mac(found.mac)),
    }
    settings
}

/// Returns whether an interface can get these settings while it is up, and stays up.
fn stays_open(link: &LinkInfo, found: &Found, leave: Leave, settings: &[LinkSetting]) -> bool {
    // Most drivers require it for the MAC address, and the kernel adds link-local addresses when a device is set up.
    let needs_closed = |setting: &LinkSetting| match setting {
        LinkSetting::Mac(_) => !setting.holds(link),
        // With the bond's MTU it may have no IPv6, and then the kernel's default is set first.
        LinkSetting::AddrGenMode(_) => link.addr_gen_mode.is_none() || !setting.holds(link),
        _ => false,
    };
    leave == Leave::AsFound && found.up && !settings.iter().any(needs_closed)
}

/// Returns whether something of an interface is as enslaving makes it, and was not found so.
fn looks_enslaved(link: &LinkInfo, found: &Found) -> bool {
    let none = LinkSetting::AddrGenMode(In6AddrGenMode::None);
    let was_none = found.addr_gen_mode().is_none_or(|mode| mode == In6AddrGenMode::None);
    (!found.allmulti && LinkSetting::Allmulti(true).holds(link)) || (!was_none && none.holds(link))
}

/// The first error of several steps, all of which are tried.
struct FirstError(Result<(), SysError>);

impl FirstError {
    fn note<T>(&mut self, result: Result<T, SysError>) {
        if let (Ok(()), Err(error)) = (&self.0, result) {
            self.0 = Err(error);
        }
    }
}

fn refusal(link: &LinkInfo, master: Option<String>, owner: Option<Owner>, hook: Hook) -> Option<Refusal> {
    let name = link.name.clone();
    if link.layer == LinkLayerType::Loopback {
        return Some(Refusal::Loopback { name });
    }
    if link.layer != LinkLayerType::Ether {
        return Some(Refusal::NotEthernet { name, layer: link.layer });
    }
    if let Some(Owner { bond, role }) = owner {
        return Some(match role {
            Role::Slave => Refusal::SlaveOf { name, bond },
            Role::Bond | Role::Port => Refusal::PartOf { name, bond },
        });
    }
    if let Some(master) = master {
        let kind = link.master_kind.clone().unwrap_or_else(|| "master".to_owned());
        return Some(Refusal::HasMaster { name, kind, master });
    }
    match link.xdp {
        Some(xdp) if hook != Hook::Tc => Some(Refusal::ForeignXdp { name, program: xdp.program }),
        _ => None,
    }
}

fn on_off(change: &FeatureChange) -> &'static str {
    super::ethtool::on_off(change.on)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use bond_core::name::BondName;

    use super::*;
    use crate::sys::{
        KernelDevices,
        alias::Alias,
        layer3::Layer3,
        netlink::{Address, AttachedXdp, KernelRoute, LinkEvent, LinkEvents, XdpMode},
        testing::{in_namespace, mac, veth},
    };

    fn mark() -> Mark {
        Mark::of(&BondName::new("bond0").unwrap())
    }

    /// By the alias alone.
    fn proof() -> Ownership {
        Ownership::new(mark(), [])
    }

    fn plan(hook: Hook) -> EnslavePlan {
        EnslavePlan { mac: Some(mac(0xaa)), mtu: 1400, hook, unicast: vec![mac(0xbb)] }
    }

    fn no_owner(_: &LinkInfo) -> Option<Owner> {
        None
    }

    /// Returns everything that enslaving could change.
    async fn state(
        devices: &KernelDevices,
        ifindex: u32,
    ) -> (LinkInfo, Vec<Address>, Vec<KernelRoute>, Vec<Mac>, Vec<crate::sys::ethtool::Feature>) {
        let netlink = &devices.netlink;
        let mut addresses = netlink.addresses_of(ifindex).await.unwrap();
        addresses.sort_by_key(|address| address.ip);
        for address in &mut addresses {
            // Whether duplicate address detection is still running depends on the time.
            address.flags &= !libc::IFA_F_TENTATIVE;
        }
        let mut routes = netlink.routes_of(ifindex).await.unwrap();
        routes.sort_by_key(|route| (route.to, route.prefix_len, route.metric, route.table));
        let link = netlink.link_by_index(ifindex).await.unwrap();
        let unicast = netlink.unicast(ifindex).await.unwrap();
        (link, addresses, routes, unicast, devices.ethtool.features(ifindex).unwrap())
    }

    /// An interface that is up, with addresses and routes.
    async fn busy(devices: &KernelDevices) -> LinkInfo {
        let (link, far) = veth(devices, "eth1", "far1").await;
        let netlink = &devices.netlink;
        let mut events = LinkEvents::open().unwrap();
        for ifindex in [far.ifindex, link.ifindex] {
            netlink.set(ifindex, LinkSetting::Up(true)).await.unwrap();
        }
        running(&mut events, link.ifindex).await;
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let v6 = Address { flags: libc::IFA_F_NODAD, ..Address::new(link.ifindex, ip("2001:db8::1"), 64) };
        for address in [Address::new(link.ifindex, ip("192.0.2.1"), 24), v6] {
            netlink.add_address(&address).await.unwrap();
        }
        for (to, via) in [("0.0.0.0", "192.0.2.9"), ("::", "2001:db8::9")] {
            netlink.replace_route(&KernelRoute::new(link.ifindex, ip(to), 0, Some(ip(via)))).await.unwrap();
        }
        // An alias may have any bytes.
        netlink.set_alias(link.ifindex, Alias::new(b"\xff uplink").as_ref()).await.unwrap();
        netlink.link_by_index(link.ifindex).await.unwrap()
    }

    /// Waits until linkwatch has processed the carrier.
    async fn running(events: &mut LinkEvents, ifindex: u32) {
        let seen = async {
            loop {
                match events.next().await.unwrap() {
                    LinkEvent::Changed(link) if link.ifindex == ifindex && link.is_running() => return,
                    _ => {}
                }
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), seen)
            .await
            .expect("the link did not come up");
    }

    #[test]
    fn a_slave_is_configured_as_planned_and_then_restored() {
        for hook in [Hook::Tc, Hook::Xdp] {
            in_namespace(async move |devices| {
                let link = busy(&devices).await;
                let before = state(&devices, link.ifindex).await;
                let plan = plan(hook);
                let found = devices.observe(("eth1", None), &plan, no_owner).await.unwrap();
                assert_eq!(state(&devices, link.ifindex).await, before, "observing changes nothing");
                for _ in 0..2 {
                    let slave = devices.enslave(&found, &plan, &mark()).await.unwrap();
                    assert!(!slave.is_up(), "closed until its program is attached");
                    let slave = devices.open_slave(slave.ifindex).await.unwrap();
                    assert_eq!((slave.mac, slave.mtu), (mac(0xaa), 1400));
                    assert!(mark().is_on(&slave));
                    assert!(slave.is_up() && LinkSetting::Allmulti(true).holds(&slave));
                    assert!(!LinkSetting::Promisc(true).holds(&slave));
                    let (_, addresses, _, unicast, features) = state(&devices, link.ifindex).await;
                    assert!(addresses.iter().all(|address| address.ip.is_ipv4()), "{addresses:?}");
                    assert_eq!(unicast, [mac(0xbb)]);
                    for change in offload::prepare(Role::Slave, hook) {
                        let kept = features.iter().find(|feature| feature.name == change.name).unwrap();
                        assert_eq!(kept.active, change.on, "{}", change.name);
                    }
                }
                let mut events = LinkEvents::open().unwrap();
                assert_eq!(devices.restore(&found, &proof()).await.unwrap(), RestoreOutcome::Done);
                running(&mut events, link.ifindex).await;
                assert_eq!(state(&devices, link.ifindex).await, before);
                let proof = Ownership::new(mark(), [found.ifindex]);
                assert_eq!(devices.restore(&found, &proof).await.unwrap(), RestoreOutcome::Done);
                assert_eq!(state(&devices, link.ifindex).await, before, "a second time changes nothing");
            });
        }
    }

    #[test]
    fn a_released_slave_is_down_with_the_mac_of_the_release() {
        in_namespace(async |devices| {
            let link = busy(&devices).await;
            let plan = plan(Hook::Xdp);
            for (given, expected) in [(None, mac(0xaa)), (Some(link.mac), link.mac)] {
                let found = devices.observe(("eth1", None), &plan, no_owner).await.unwrap();
                devices.enslave(&found, &plan, &mark()).await.unwrap();
                assert_eq!(devices.release(&found, given, &proof()).await.unwrap(), RestoreOutcome::Done);
                let (released, _, _, unicast, _) = state(&devices, link.ifindex).await;
                assert_eq!((released.mac, released.mtu), (expected, link.mtu));
                assert!(!released.is_up() && !LinkSetting::Allmulti(true).holds(&released));
                assert_eq!((released.addr_gen_mode, unicast), (link.addr_gen_mode, vec![]));
            }
        });
    }

    #[test]
    fn a_step_that_fails_undoes_the_others() {
        in_namespace(async |devices| {
            let link = busy(&devices).await;
            let before = state(&devices, link.ifindex).await;
            let plan = EnslavePlan { mtu: 70_000, ..plan(Hook::Xdp) };
            let found = devices.observe(("eth1", None), &plan, no_owner).await.unwrap();
            let mut events = LinkEvents::open().unwrap();
            let error = devices.enslave(&found, &plan, &mark()).await.unwrap_err();
            assert!(error.to_string().starts_with("set MTU 70000 on eth1: Invalid argument"), "{error}");
            running(&mut events, link.ifindex).await;
            assert_eq!(state(&devices, link.ifindex).await, before);
        });
    }

    #[test]
    fn a_missing_or_replaced_device_is_not_restored() {
        in_namespace(async |devices| {
            let link = busy(&devices).await;
            let found = devices.observe(("eth1", None), &plan(Hook::Tc), no_owner).await.unwrap();
            let before = state(&devices, link.ifindex).await;
            let other = Found { permanent_mac: Some(mac(0x77)), mtu: 1300, ..found.clone() };
            assert_eq!(devices.restore(&other, &proof()).await.unwrap(), RestoreOutcome::Gone);
            assert_eq!(state(&devices, link.ifindex).await, before);
            devices.netlink.delete(link.ifindex).await.unwrap();
            assert_eq!(devices.restore(&found, &proof()).await.unwrap(), RestoreOutcome::Gone);
            assert_eq!(devices.release(&found, None, &proof()).await.unwrap(), RestoreOutcome::Gone);
        });
    }

    #[test]
    fn an_interface_that_the_kernel_does_not_confirm_is_not_changed() {
        in_namespace(async |devices| {
            let link = busy(&devices).await;
            let found = devices.observe(("eth1", None), &plan(Hook::Tc), no_owner).await.unwrap();
            let answer = devices.restore(&found, &proof()).await.unwrap();
            let untouched = Unconfirmed { name: "eth1".to_owned(), looks_enslaved: false };
            assert_eq!(answer, RestoreOutcome::Unconfirmed(untouched));
            let mut events = LinkEvents::open().unwrap();
            devices.enslave(&found, &plan(Hook::Tc), &mark()).await.unwrap();
            running(&mut events, link.ifindex).await;
            for alias in [None, Alias::new("xbond:bond1"), Alias::new("uplink")] {
                devices.netlink.set_alias(link.ifindex, alias.as_ref()).await.unwrap();
                let before = state(&devices, link.ifindex).await;
                let slave = Unconfirmed { name: "eth1".to_owned(), looks_enslaved: true };
                assert_eq!(
                    devices.restore(&found, &proof()).await.unwrap(),
                    RestoreOutcome::Unconfirmed(slave)
                );
                devices.return_addresses(&found, &proof()).await.unwrap();
                assert_eq!(state(&devices, link.ifindex).await, before, "{alias:?}");
            }
            // An administrator's alias stays if a program confirms the interface.
            let known = Ownership::new(mark(), [link.ifindex]);
            assert_eq!(devices.restore(&found, &known).await.unwrap(), RestoreOutcome::Done);
            assert_eq!(
                devices.netlink.link_by_index(link.ifindex).await.unwrap().alias,
                Alias::new("uplink")
            );
        });
    }

    /// A record that was not read from the kernel may have such routes.
    #[test]
    fn routes_of_other_devices_are_not_restored() {
        in_namespace(async |devices| {
            let link = busy(&devices).await;
            let netlink = &devices.netlink;
            let (other, far) = veth(&devices, "eth9", "far9").await;
            for ifindex in [other.ifindex, far.ifindex] {
                // Its addresses do not change by themselves.
                netlink.set(ifindex, LinkSetting::AddrGenMode(In6AddrGenMode::None)).await.unwrap();
                netlink.set(ifindex, LinkSetting::Up(true)).await.unwrap();
            }
            let found = devices.observe(("eth1", None), &plan(Hook::Tc), no_owner).await.unwrap();
            let (before, others) =
                (state(&devices, link.ifindex).await, state(&devices, other.ifindex).await);
            devices.enslave(&found, &plan(Hook::Tc), &mark()).await.unwrap();
            let ip = |text: &str| text.parse::<IpAddr>().unwrap();
            let forged = KernelRoute::new(other.ifindex, ip("203.0.113.0"), 24, None).to_kept().unwrap();
            let messages = found.layer3.addresses().chain(found.layer3.routes()).cloned();
            let layer3 = Layer3::of(messages.chain([forged]).collect());
            let mut events = LinkEvents::open().unwrap();
            let found = Found { layer3: Arc::new(layer3), ..found };
            assert_eq!(devices.restore(&found, &proof()).await.unwrap(), RestoreOutcome::Done);
            running(&mut events, link.ifindex).await;
            assert_eq!(state(&devices, link.ifindex).await, before);
            assert_eq!(state(&devices, other.ifindex).await, others);
        });
    }

    #[test]
    fn refusals_name_the_owner() {
        in_namespace(async |devices| {
            let (link, _) = veth(&devices, "eth1", "far1").await;
            let refused = async |name, owner: Option<Owner>| {
                let answer = devices.observe((name, None), &plan(Hook::Tc), |_| owner.clone()).await;
                answer.unwrap_err().to_string()
            };
            let owner = |role| Some(Owner { bond: "bond7".to_owned(), role });
            assert_eq!(refused("lo", None).await, "lo: the loopback device cannot be a slave");
            assert_eq!(refused("eth2", None).await, "eth2: no such interface in this network namespace");
            assert_eq!(
                refused("eth1", owner(Role::Slave)).await,
                "eth1: already a slave of bond7; release it first: xbond del-slave bond7 eth1, or without an agent: \
                 xbond down bond7 --force"
            );
            assert_eq!(
                refused("eth1", owner(Role::Port)).await,
                "eth1: belongs to the bond bond7, and cannot be a slave"
            );
            devices.netlink.create_bridge("br0", link.ifindex).await;
            assert_eq!(
                refused("eth1", None).await,
                "eth1: already a port of bridge br0; remove it first: ip link set eth1 nomaster"
            );
        });
    }

    #[test]
    fn foreign_xdp_and_other_layers_are_refused() {
        let mut link = crate::sys::testing::link(7, "enp0s8");
        assert_eq!(refusal(&link, None, None, Hook::Xdp), None);
        link.xdp = Some(AttachedXdp { program: 17, mode: XdpMode::Native });
        assert_eq!(refusal(&link, None, None, Hook::Tc), None);
        let text = |link: &LinkInfo| refusal(link, None, None, Hook::Xdp).unwrap().to_string();
        assert_eq!(
            text(&link),
            "enp0s8: XDP program id 17 is attached; detach it first: ip link set enp0s8 xdp off"
        );
        link.layer = LinkLayerType::Infiniband;
        assert_eq!(text(&link), "enp0s8: not an Ethernet device, but of type INFINIBAND");
    }
}
