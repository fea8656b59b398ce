//! Under which names devices reach the server, and for which its certificate is good.

use anyhow::{Result, bail};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// What devices are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) api_host: String,
    pub(super) mqtt_host: String,
    /// All names and addresses under which somebody may come.
    pub(super) certificate: Vec<String>,
}

impl Names {
    /// The first of `public_hosts`; without any, the addresses that are listened on. Where MQTT is elsewhere, its host is
    /// that of the API.
    pub(super) fn new(public_hosts: &[String], api: SocketAddr, mqtt: Option<SocketAddr>) -> Result<Self> {
        let mut certificate: Vec<String> = public_hosts.iter().map(|host| plain(host).to_owned()).collect();
        let public = certificate.first().cloned();
        let told = |flag: &str, address: SocketAddr| match &public {
            Some(host) => Ok(host.clone()),
            None if address.ip().is_unspecified() => {
                bail!(
                    "{flag} {address} listens on every address, and devices have to be told one; add --public-host NAME"
                )
            }
            None => Ok(address.ip().to_string()),
        };
        let api_host = told("--api", api)?;
        let mqtt_host =
            mqtt.map(|mqtt| told("--mqtt", mqtt)).transpose()?.unwrap_or_else(|| api_host.clone());
        let bound = [Some(api), mqtt].into_iter().flatten().map(|address| address.ip());
        certificate.extend(bound.filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string()));
        certificate.sort();
        certificate.dedup();
        Ok(Self { api_host, mqtt_host, certificate })
    }
}

/// A host with a port, as in an URL.
pub(super) fn with_port(host: &str, port: u16) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(address) => SocketAddr::new(IpAddr::V6(address), port).to_string(),
        Err(_) => format!("{host}:{port}"),
    }
}

/// Without the brackets that an IPv6 address has in an URL.
fn plain(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(public: &[&str], api: &str, mqtt: &str) -> Result<Names> {
        let public: Vec<String> = public.iter().map(|host| (*host).to_owned()).collect();
        Names::new(&public, api.parse().unwrap(), Some(mqtt.parse().unwrap()))
    }

    #[test]
    fn devices_are_told_the_address_that_is_listened_on_and_the_certificate_is_good_for_it() {
        let names = names(&[], "192.168.1.5:8443", "192.168.1.6:8883").unwrap();
        assert_eq!((names.api_host.as_str(), names.mqtt_host.as_str()), ("192.168.1.5", "192.168.1.6"));
        assert_eq!(names.certificate, ["192.168.1.5", "192.168.1.6"]);
    }

    #[test]
    fn a_public_name_goes_before_every_address() {
        let names = names(&["edge.example", "[2001:db8::1]"], "0.0.0.0:8443", "192.168.1.6:8883").unwrap();
        assert_eq!((names.api_host.as_str(), names.mqtt_host.as_str()), ("edge.example", "edge.example"));
        assert_eq!(names.certificate, ["192.168.1.6", "2001:db8::1", "edge.example"]);
    }

    #[test]
    fn every_address_is_none_that_devices_can_be_told() {
        for (api, mqtt, flag) in
            [("0.0.0.0:1", "127.0.0.1:2", "--api 0.0.0.0:1"), ("127.0.0.1:1", "[::]:2", "--mqtt [::]:2")]
        {
            let error = names(&[], api, mqtt).unwrap_err().to_string();
            assert!(error.starts_with(flag) && error.contains("--public-host NAME"), "{error}");
        }
    }

    #[test]
    fn an_ipv6_address_stands_in_brackets_before_a_port() {
        assert_eq!(with_port("::1", 8443), "[::1]:8443");
        assert_eq!(with_port("127.0.0.1", 8443), "127.0.0.1:8443");
        assert_eq!(with_port("edge.example", 8443), "edge.example:8443");
    }
}
