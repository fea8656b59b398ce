//! Where a broker is.

use std::{fmt, str::FromStr};

const SCHEME: &str = "mqtts://";
const PORT: u16 = 8883;

/// The address of a broker elsewhere, as in `mqtts://edge.example:8883`. An IPv6 address needs a name: MQTT clients, ours
/// among them, take none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

/// What a text lacks to be the address of a broker.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not mqtts://HOST:PORT")]
pub struct NotAnAddress(String);

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let wrong = || NotAnAddress(text.to_owned());
        let rest = text.strip_prefix(SCHEME).ok_or_else(wrong)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.split_once(':') {
            Some((host, port)) => (host, port.parse().ok().filter(|&port| port > 0).ok_or_else(wrong)?),
            None => (rest, PORT),
        };
        let plain = host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'));
        if host.is_empty() || !plain { Err(wrong()) } else { Ok(Self { host: host.to_owned(), port }) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_with_a_port_over_tls() {
        for (text, host, port) in [
            ("mqtts://edge.example:1883", "edge.example", 1883),
            ("mqtts://edge.example", "edge.example", 8883),
            ("mqtts://192.168.1.5:8884/", "192.168.1.5", 8884),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port), "{text}");
            assert_eq!(address.to_string().parse(), Ok(address), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "edge.example:8883",
            "mqtt://edge.example:8883",
            "mqtts://",
            "mqtts://:8883",
            "mqtts://edge.example:",
            "mqtts://edge.example:0",
            "mqtts://edge.example:99999",
            "mqtts://user@edge.example",
            "mqtts://edge.example/path",
            "mqtts://[::1]:8883",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
