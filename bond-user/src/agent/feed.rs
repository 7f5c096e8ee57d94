//! Events, as they happen, for the clients of `/v1/events`. The agent does not wait for a client.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::{
    sync::{
        Notify,
        broadcast::{self, error::RecvError},
    },
    time::timeout,
};

use crate::report::event::{Event, What};

/// Events that a listener may be behind. One that is further behind gets an event that says so, and is disconnected.
const BACKLOG: usize = 256;

/// Far longer than a reader takes, and short for an administrator who waits for the end.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Distributes events to the listeners.
#[derive(Clone, Debug)]
pub struct Feed {
    sender: broadcast::Sender<Arc<Line>>,
    happened: Arc<Notify>,
}

#[derive(Debug)]
enum Line {
    /// An event, as it is sent.
    Event { bond: String, text: Bytes },
    /// The end of the stream.
    End,
}

impl Default for Feed {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG), happened: Arc::default() }
    }
}

impl Feed {
    /// Sends an event to the listeners.
    pub fn publish(&self, bond: &str, what: What) {
        self.happened.notify_one();
        if self.sender.receiver_count() == 0 {
            return;
        }
        let text = Event::new(Some(bond), what).line().into();
        // That the last listener has left just now is no failure.
        let _ = self.sender.send(Arc::new(Line::Event { bond: bond.to_owned(), text }));
    }

    /// Ends the streams after what was published so far. The agent waits a moment for the listeners, and then ends.
    pub async fn end(&self) {
        if self.sender.send(Arc::new(Line::End)).is_ok() {
            let _ = timeout(LAST_WORDS, self.sender.closed()).await;
        }
    }

    /// Waits until an event was published since the last call. There is one caller.
    pub async fn happened(&self) {
        self.happened.notified().await;
    }

    /// Returns a listener to the events from now on.
    pub fn listen(&self) -> Listener {
        Listener { receiver: self.sender.subscribe() }
    }
}

/// A listener to events.
pub struct Listener {
    receiver: broadcast::Receiver<Arc<Line>>,
}

impl Listener {
    /// Returns the lines of these events, and then of those that are published, of one bond or of all. The stream ends when the
    /// listener was too slow.
    pub fn lines(
        self,
        first: Vec<Event>,
        only: Option<String>,
    ) -> impl Stream<Item = Result<Bytes, Infallible>> {
        let first: VecDeque<Bytes> = first.iter().map(|event| event.line().into()).collect();
        stream::unfold(Some((first, self.receiver)), move |state| {
            let only = only.clone();
            async move {
                let (mut first, mut receiver) = state?;
                if let Some(line) = first.pop_front() {
                    return Some((Ok(line), Some((first, receiver))));
                }
                loop {
                    match receiver.recv().await {
                        Ok(line) => match &*line {
                            Line::Event { bond, text } if only.as_ref().is_none_or(|only| only == bond) => {
                                return Some((Ok(text.clone()), Some((first, receiver))));
                            }
                            Line::Event { .. } => {}
                            Line::End => return None,
                        },
                        Err(RecvError::Lagged(missed)) => {
                            let last = Event::new(only.as_deref(), What::Lagged { missed });
                            return Some((Ok(last.line().into()), None));
                        }
                        Err(RecvError::Closed) => return None,
                    }
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::StreamExt as _;

    use super::*;

    fn note(number: usize) -> What {
        What::Note { text: number.to_string() }
    }

    fn what(line: &[u8]) -> What {
        serde_json::from_slice::<Event>(line).unwrap().what
    }

    #[tokio::test]
    async fn a_listener_receives_the_initial_state_and_the_events_of_its_bond() {
        let feed = Feed::default();
        feed.publish("bond0", note(0));
        let listener = feed.listen();
        let state = What::State { active_slave: None, carrier: false };
        feed.publish("bond1", note(1));
        feed.publish("bond0", note(2));
        let first = vec![Event::new(Some("bond0"), state.clone())];
        let mut lines = pin!(listener.lines(first, Some("bond0".into())));
        assert_eq!(what(&lines.next().await.unwrap().unwrap()), state);
        assert_eq!(what(&lines.next().await.unwrap().unwrap()), note(2));
        drop(feed);
        assert!(lines.next().await.is_none());
    }

    #[tokio::test]
    async fn listeners_receive_the_end_after_the_last_event() {
        let feed = Feed::default();
        let mut lines = Box::pin(feed.listen().lines(Vec::new(), None));
        feed.publish("bond0", note(1));
        let listening = async {
            assert_eq!(what(&lines.next().await.unwrap().unwrap()), note(1));
            assert!(lines.next().await.is_none());
            drop(lines);
        };
        let start = tokio::time::Instant::now();
        tokio::join!(feed.end(), listening);
        assert!(start.elapsed() < LAST_WORDS);
    }

    #[tokio::test]
    async fn a_slow_listener_is_notified_and_disconnected() {
        let feed = Feed::default();
        let mut slow = pin!(feed.listen().lines(Vec::new(), None));
        for number in 0..BACKLOG + 7 {
            feed.publish("bond0", note(number));
        }
        assert_eq!(what(&slow.next().await.unwrap().unwrap()), What::Lagged { missed: 7 });
        assert!(slow.next().await.is_none());
    }
}
