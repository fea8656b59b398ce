//! What comes from the broker: messages are taken in in their order, those that are there together together, and each is
//! acknowledged, in that order too, when it is kept or refused for good.
//!
//! Who a device is says the topic, since the broker lets a device publish on its own topics alone. Whether it still is
//! one of the fleet is asked here with each message, or with those that are there together: the broker may not know yet that a certificate was revoked.

use super::{
    super::{Ingest, Refused, quoted},
    Takeovers,
    connection::Order,
};
use futures::future::join_all;
use rumqttc::v5::mqttbytes::{QoS, v5::Publish};
use shared::{DeviceId, topic::Topic};
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};

/// Most messages that are taken in together.
const TOGETHER_MAX: usize = 512;

/// A message that waits to be taken in.
pub(super) struct Waiting {
    pub(super) message: Publish,
    /// Its bytes of what may wait, until its acknowledgement goes out.
    pub(super) room: OwnedSemaphorePermit,
}

/// Those of the devices that talk that are of the fleet, where that can be looked up.
type Known = Result<HashSet<DeviceId>, Refused>;

/// Takes in the messages of one connection.
pub(super) struct Intake {
    pub(super) ingest: Arc<dyn Ingest>,
    pub(super) orders: mpsc::UnboundedSender<Order>,
    pub(super) takeovers: Takeovers,
    /// The connection has to end: something could not be kept, and comes again with the next one.
    pub(super) fault: Arc<Notify>,
    /// It has ended: what still waits comes again.
    pub(super) over: Arc<AtomicBool>,
}

impl Intake {
    pub(super) async fn run(self, mut messages: mpsc::UnboundedReceiver<Waiting>) {
        let mut together = Vec::new();
        while messages.recv_many(&mut together, TOGETHER_MAX).await > 0 {
            if self.over.load(Ordering::Acquire) {
                return;
            }
            let taken = self.take_all(&together).await;
            for (Waiting { message, room }, taken) in together.drain(..).zip(taken) {
                // Nothing after it may be acknowledged before it.
                if taken.is_err() {
                    self.fault.notify_one();
                    return;
                }
                if message.qos != QoS::AtMostOnce {
                    // Where the connection has ended it comes again over the next one.
                    let _ = self.orders.send(Order::Acknowledge { number: message.pkid, room });
                }
            }
        }
    }

    /// What came of each, in their order. They are begun in that order, so that of one device the first is kept first.
    async fn take_all(&self, waiting: &[Waiting]) -> Vec<Result<(), Refused>> {
        let senders = waiting.iter().filter_map(|waiting| {
            let (device, _) = sender(&String::from_utf8_lossy(&waiting.message.topic))?;
            Some(device)
        });
        let senders: Vec<DeviceId> = senders.collect::<HashSet<DeviceId>>().into_iter().collect();
        let known = self.ingest.with_good_certificates(&senders).await;
        join_all(waiting.iter().map(|waiting| self.take(&waiting.message, &known))).await
    }

    /// `Ok` when there is no need for it to come again.
    async fn take(&self, message: &Publish, known: &Known) -> Result<(), Refused> {
        let text = String::from_utf8_lossy(&message.topic);
        let Some((device, topic)) = sender(&text) else {
            self.ingest.refused(super::CLIENT_NAME, "foreign_topic", quoted(&text)).await;
            return Ok(());
        };
        if !known.as_ref().map_err(Clone::clone)?.contains(&device) {
            // What was retained was said when the device may still have been one of the fleet.
            if !message.retain {
                let detail = format!("{topic}: no certificate of it is good");
                self.ingest.refused(device.as_str(), "unknown_certificate", detail).await;
                self.takeovers.talks(&device);
            }
            return Ok(());
        }
        let payload = message.payload.clone();
        let taken = if message.retain {
            self.ingest.recall(&device, &topic, payload).await
        } else {
            self.ingest.receive(&device, &topic, payload).await
        };
        match taken {
            Err(Refused::Invalid(reason)) => {
                self.ingest.refused(device.as_str(), "bad_payload", format!("{topic}: {reason}")).await;
                Ok(())
            }
            taken => taken,
        }
    }
}

/// The topic, with the device that alone may publish there.
fn sender(text: &str) -> Option<(DeviceId, Topic)> {
    let topic: Topic = text.parse().ok()?;
    let device = topic.device().filter(|device| topic.device_may_publish(device))?.clone();
    Some((device, topic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_from_the_device_whose_topic_it_is_on_and_from_nobody_else() {
        let (device, topic) = sender("ew/v1/device/cam-01/blob/want").unwrap();
        assert_eq!((device.as_str(), topic), ("cam-01", Topic::BlobWant("cam-01".parse().unwrap())));
        for text in [
            "ew/v1/device/cam-01/desired",
            "ew/v1/device/edgewright:control-plane/event",
            "ew/v1/trust/timestamp",
            "ew/v1/device/cam-01/other",
            "elsewhere",
        ] {
            assert!(sender(text).is_none(), "{text}");
        }
    }
}
