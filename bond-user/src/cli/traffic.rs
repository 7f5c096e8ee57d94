//! Traffic of a NIC whose loss its user would notice.

use std::{env, net::IpAddr};

use crate::sys::{SysError, netlink::Netlink};

/// Returns what would be lost if this interface were enslaved: the address of the current login, or the default
/// route.
///
/// # Errors
/// The kernel does not list the addresses or the routes.
pub async fn carried_by(netlink: &Netlink, ifindex: u32) -> Result<Option<&'static str>, SysError> {
    let login = login(&env::var("SSH_CONNECTION").unwrap_or_default());
    if netlink.addresses_of(ifindex).await?.iter().any(|address| Some(address.ip) == login) {
        return Ok(Some("the address by which you are logged in"));
    }
    let is_default = netlink.routes_of(ifindex).await?.iter().any(|route| route.prefix_len == 0);
    Ok(is_default.then_some("the default route"))
}

/// Returns the third word of SSH_CONNECTION: the local address.
fn login(connection: &str) -> Option<IpAddr> {
    connection.split_whitespace().nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::login;

    #[test]
    fn the_address_of_a_login_is_that_of_this_side() {
        assert_eq!(login("192.0.2.1 50000 192.0.2.2 22"), "192.0.2.2".parse().ok());
        assert_eq!(login("2001:db8::1 50000 2001:db8::2 22"), "2001:db8::2".parse().ok());
        assert_eq!(login(""), None);
    }
}
