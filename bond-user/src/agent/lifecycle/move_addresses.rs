//! Addresses, routes, neighbours and rules that go from a slave to the bond (`move_addresses`), so that the NIC by which one
//! is logged in can be bonded. The way back is that of everything: found.json says how the slave was.

use bond_common::mac::Mac;

use crate::{
    agent::AgentError,
    report::{log, wording},
    sys::{
        Devices, SysError,
        alias::Mark,
        enslave::Refusal,
        found::Found,
        layer3::{Layer3, Target, Unrestorable},
        netlink::LinkSetting,
    },
};

/// What the first slave that has any gives to the bond.
pub struct Moved {
    /// As it was found.
    pub from: Found,
    bond: String,
    ifindex: u32,
    mac: Mac,
}

impl Moved {
    /// Returns what is to be moved, if anything is. The bond has a name, an
    /// ifindex and a MAC.
    pub fn of<'a>(
        found: impl IntoIterator<Item = &'a Found>,
        bond: &str,
        (ifindex, mac): (u32, Mac),
    ) -> Option<Self> {
        let from = found.into_iter().find(|found| found.layer3.gives_anything())?;
        Some(Self { from: from.clone(), bond: bond.to_owned(), ifindex, mac })
    }

    /// Checks, before anything is changed, that all of it can be moved. Returns the rules that are to be added: those
    /// about packets of the slave, for the bond, whose MTU is `mtu` bytes.
    ///
    /// # Errors
    /// [`Refusal::Unmovable`]
    pub async fn check(&self, devices: &dyn Devices, mtu: u32) -> Result<Layer3, AgentError> {
        let refusal = |Unrestorable { what, why }| {
            let (name, bond) = (self.from.name.clone(), self.bond.clone());
            AgentError::from(SysError::from(Refusal::Unmovable { name, bond, what, why }))
        };
        if let Some(unfit) = self.from.layer3.unmovable(&self.target(), mtu) {
            return Err(refusal(unfit));
        }
        if let Some(route) = devices.mpls_routes_over(self.from.ifindex).await?.first() {
            let (what, why) = (wording::mpls_route(route), wording::MPLS_STAYS);
            return Err(refusal(Unrestorable { what, why }));
        }
        devices.rules_to_copy(&self.from.name, &self.bond).await?.map_err(refusal)
    }

    /// Takes addresses and rules, before the slave is enslaved: there is no moment at which the host does not have the
    /// addresses.
    ///
    /// # Errors
    /// The bond does not take an address or a rule, or the slave's address cannot be removed. What was moved stays for
    /// the undo.
    pub async fn take_addresses(
        &self,
        devices: &dyn Devices,
        rules: &Layer3,
        mark: &Mark,
    ) -> Result<(), AgentError> {
        // By its alias the kernel confirms that the slave is to get them back, whatever ends this before it is enslaved.
        devices.set_alias(self.from.ifindex, Some(mark.alias())).await?;
        devices.set(self.ifindex, LinkSetting::Up(true)).await?;
        devices.put_addresses(&self.from.layer3, &self.target()).await?;
        for address in self.from.layer3.addresses() {
            log::of(&self.bond).info(wording::address_moved(address, &self.from.name));
            if let Some(seconds) = address.valid_for() {
                log::of(&self.bond).warn(wording::expiring(address, seconds, &self.from.name, &self.bond));
            }
        }
        devices.add_rules(rules).await?;
        // IPv6 ones go when it is closed.
        devices.take_ipv4_addresses(&self.from.layer3).await?;
        Ok(())
    }

    /// Takes the rest, after the slave was enslaved, which has taken it from there.
    ///
    /// # Errors
    /// The bond does not take a route.
    pub async fn take_routes(&self, devices: &dyn Devices) -> Result<(), AgentError> {
        devices.put_routes(&self.from.layer3, &self.target(), &self.bond).await?;
        let (routes, from) = (self.from.layer3.routes().count(), &self.from.name);
        log::of(&self.bond).info(wording::routes_moved(routes, from));
        Ok(())
    }

    fn target(&self) -> Target<'_> {
        Target {
            from: self.from.ifindex,
            to: self.ifindex,
            names: Some((&self.from.name, &self.bond)),
            mac: Some(self.mac),
        }
    }
}
