//! The shapes of what is stored, apart from those that the rules work on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::texts::{Reader, TextRef, Texts};
use super::{FormatError, id_half, id_of};
use crate::rules::{Entry, Kind, Late, Previous, Tally};
use crate::session::{DeviceInfo, GeoInfo, Millis, Reason, SessionContext, UtmParams, Visitor};
use crate::timeline::{Head, Notice, Timeline};

/// Bytes of a fingerprint.
const PRINT_BYTES: usize = 6;

type IdHalf = [u8; 8];

#[derive(Serialize, Deserialize)]
pub(super) struct WireTimeline<'a> {
    #[serde(borrow)]
    texts: Vec<(u32, &'a str)>,
    seq: u64,
    frontier: Option<Millis>,
    archived: u32,
    previous: Option<WirePrevious>,
    #[serde(borrow)]
    ended: Vec<WireSession<'a>>,
    #[serde(borrow)]
    open: Option<WireSession<'a>>,
    /// Campaigns, devices and places of the journal: most entries say the same.
    contexts: Vec<WireOrigin>,
    journal: Vec<WireEntry>,
    heads: Vec<WireHead>,
    notices: Vec<WireNotice>,
}

#[derive(Serialize, Deserialize)]
struct WirePrevious {
    id: IdHalf,
    started_at: Millis,
    lasted: u64,
    event_count: u32,
    ended_by_call: bool,
    number: u32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct WireSession<'a> {
    id: IdHalf,
    version: u64,
    reason: Reason,
    number: u32,
    previous: Option<IdHalf>,
    started_at: Millis,
    lasted: u64,
    event_count: u32,
    page_views: u32,
    entry_url: TextRef,
    landing_page: TextRef,
    exit_page: TextRef,
    referrer: TextRef,
    click: Option<[u8; 8]>,
    origin: WireOrigin,
    properties: Vec<(TextRef, TextRef)>,
    ended_by_call: bool,
    aliases: Vec<IdHalf>,
    #[serde(borrow)]
    seen: std::borrow::Cow<'a, [u8]>,
    late: WireLate,
}

/// What a [`WireOrigin`] stands for.
type Origin = (Option<UtmParams>, Option<DeviceInfo>, Option<GeoInfo>);

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
struct WireOrigin {
    utm: Option<[TextRef; 5]>,
    device: Option<[TextRef; 6]>,
    geo: Option<[TextRef; 4]>,
}

#[derive(Serialize, Deserialize)]
struct WireEntry {
    /// Milliseconds since the entry before; of the first, since 1970.
    gap: u64,
    uuid: WireUuid,
    kind: WireKind,
    url: TextRef,
    referrer: TextRef,
    /// Its place among the contexts.
    origin: u32,
    click: Option<[u8; 8]>,
    properties: Vec<(TextRef, TextRef)>,
}

/// An event's id: 16 bytes where its text is a UUID's usual form.
#[derive(Serialize, Deserialize)]
enum WireUuid {
    Bits([u8; 16]),
    Text(TextRef),
}

#[derive(Serialize, Deserialize, Clone, Copy)]
enum WireKind {
    Pageview,
    Event,
    Touch,
    End,
}

#[derive(Serialize, Deserialize)]
struct WireHead {
    entry: u32,
    id: IdHalf,
    leads: bool,
    version: u64,
    late: WireLate,
}

#[derive(Serialize, Deserialize)]
struct WireLate {
    event_count: u32,
    page_views: u32,
    seen: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
enum WireNotice {
    Merged { from: IdHalf, into: IdHalf, version: u64 },
    Split { from: IdHalf, into: IdHalf, at: Millis, uuid: TextRef, version: u64 },
}

/// Visits every text that a timeline stores.
pub(super) fn each_text<'a>(timeline: &'a Timeline, add: &mut impl FnMut(&'a str)) {
    for session in timeline.ended.iter().chain(&timeline.open) {
        each_session_text(session, add);
    }
    for entry in &timeline.journal {
        let context = &entry.context;
        [&context.url, &context.referrer].into_iter().flatten().for_each(|text| add(text));
        each_origin_text(context.utm.as_ref(), context.device.as_ref(), context.geo.as_ref(), add);
        entry.properties.iter().for_each(|(key, value)| {
            add(key);
            add(value);
        });
        if canonical(&entry.uuid).is_none() {
            add(&entry.uuid);
        }
    }
    for notice in &timeline.notices {
        if let Notice::Split { uuid, .. } = notice {
            add(uuid);
        }
    }
}

/// Visits every text that a session stores.
pub(super) fn each_session_text<'a>(session: &'a Tally, add: &mut impl FnMut(&'a str)) {
    let texts = [&session.entry_url, &session.landing_page, &session.exit_page, &session.referrer];
    texts.into_iter().flatten().for_each(|text| add(text));
    each_origin_text(session.utm.as_ref(), session.device.as_ref(), session.geo.as_ref(), add);
    session.properties.iter().for_each(|(key, value)| {
        add(key);
        add(value);
    });
}

fn each_origin_text<'a>(
    utm: Option<&'a UtmParams>,
    device: Option<&'a DeviceInfo>,
    geo: Option<&'a GeoInfo>,
    add: &mut impl FnMut(&'a str),
) {
    let utm = utm.map(utm_texts).into_iter().flatten();
    let device = device.map(device_texts).into_iter().flatten();
    let geo = geo.map(geo_texts).into_iter().flatten();
    utm.chain(device).chain(geo).flatten().for_each(add);
}

fn utm_texts(utm: &UtmParams) -> [Option<&str>; 5] {
    [&utm.source, &utm.medium, &utm.campaign, &utm.term, &utm.content].map(Option::as_deref)
}

fn device_texts(device: &DeviceInfo) -> [Option<&str>; 6] {
    let [os, os_version, browser, browser_version, screen] =
        [&device.os, &device.os_version, &device.browser, &device.browser_version, &device.screen_resolution]
            .map(Option::as_deref);
    [Some(device.device_type.as_str()), os, os_version, browser, browser_version, screen]
}

fn geo_texts(geo: &GeoInfo) -> [Option<&str>; 4] {
    [&geo.country, &geo.region, &geo.city, &geo.timezone].map(Option::as_deref)
}

/// The bits of an id in a UUID's usual form: lower case, with hyphens.
fn canonical(uuid: &str) -> Option<Uuid> {
    let bits = Uuid::try_parse(uuid).ok()?;
    let mut buffer = Uuid::encode_buffer();
    (*bits.hyphenated().encode_lower(&mut buffer) == *uuid).then_some(bits)
}

impl WireOrigin {
    fn write(utm: Option<&UtmParams>, device: Option<&DeviceInfo>, geo: Option<&GeoInfo>, texts: &Texts<'_>) -> Self {
        Self {
            utm: utm.map(|utm| utm_texts(utm).map(|text| texts.place(text))),
            device: device.map(|device| device_texts(device).map(|text| texts.place(text))),
            geo: geo.map(|geo| geo_texts(geo).map(|text| texts.place(text))),
        }
    }

    fn read(&self, texts: &Reader) -> Result<Origin, FormatError> {
        let get = |place: TextRef| texts.get(place);
        let utm = match self.utm {
            Some([source, medium, campaign, term, content]) => Some(UtmParams {
                source: get(source)?,
                medium: get(medium)?,
                campaign: get(campaign)?,
                term: get(term)?,
                content: get(content)?,
            }),
            None => None,
        };
        let device = match self.device {
            Some([kind, os, os_version, browser, browser_version, screen]) => Some(DeviceInfo {
                device_type: texts.require(kind)?,
                os: get(os)?,
                os_version: get(os_version)?,
                browser: get(browser)?,
                browser_version: get(browser_version)?,
                screen_resolution: get(screen)?,
            }),
            None => None,
        };
        let geo = match self.geo {
            Some([country, region, city, timezone]) => Some(GeoInfo {
                country: get(country)?,
                region: get(region)?,
                city: get(city)?,
                timezone: get(timezone)?,
            }),
            None => None,
        };
        Ok((utm, device, geo))
    }
}

impl WireLate {
    fn write(late: &Late) -> Self {
        Self { event_count: late.event_count, page_views: late.page_views, seen: prints(&late.seen) }
    }

    fn read(&self) -> Result<Late, FormatError> {
        Ok(Late { event_count: self.event_count, page_views: self.page_views, seen: read_prints(&self.seen)? })
    }
}

fn prints(seen: &[u64]) -> Vec<u8> {
    seen.iter().flat_map(|print| print.to_le_bytes().into_iter().take(PRINT_BYTES)).collect()
}

fn read_prints(bytes: &[u8]) -> Result<Vec<u64>, FormatError> {
    let (chunks, rest) = bytes.as_chunks::<PRINT_BYTES>();
    if !rest.is_empty() {
        return Err(FormatError::Rule("a fingerprint is cut off"));
    }
    Ok(chunks.iter().map(|&[a, b, c, d, e, f]| u64::from_le_bytes([a, b, c, d, e, f, 0, 0])).collect())
}

fn pairs<'p>(properties: impl Iterator<Item = (&'p String, &'p String)>, texts: &Texts<'_>) -> Vec<(TextRef, TextRef)> {
    properties.map(|(key, value)| (texts.place(Some(key)), texts.place(Some(value)))).collect()
}

fn read_pairs(pairs: &[(TextRef, TextRef)], texts: &Reader) -> Result<Vec<(String, String)>, FormatError> {
    pairs.iter().map(|&(key, value)| Ok((texts.require(key)?, texts.require(value)?))).collect()
}

/// The time this many milliseconds after another.
fn after(start: Millis, lasted: u64) -> Result<Millis, FormatError> {
    start.checked_add_unsigned(lasted).ok_or(FormatError::Rule("a time is out of range"))
}

impl WireSession<'_> {
    pub(super) fn write(tally: &Tally, texts: &Texts<'_>) -> Self {
        Self {
            id: id_half(tally.id),
            version: tally.version,
            reason: tally.reason,
            number: tally.number,
            previous: tally.previous.map(id_half),
            started_at: tally.started_at,
            lasted: tally.last_activity.abs_diff(tally.started_at),
            event_count: tally.event_count,
            page_views: tally.page_views,
            entry_url: texts.place(tally.entry_url.as_deref()),
            landing_page: texts.place(tally.landing_page.as_deref()),
            exit_page: texts.place(tally.exit_page.as_deref()),
            referrer: texts.place(tally.referrer.as_deref()),
            click: tally.click.map(u64::to_be_bytes),
            origin: WireOrigin::write(tally.utm.as_ref(), tally.device.as_ref(), tally.geo.as_ref(), texts),
            properties: pairs(tally.properties.iter(), texts),
            ended_by_call: tally.ended_by_call,
            aliases: tally.aliases.iter().map(|&id| id_half(id)).collect(),
            seen: prints(&tally.seen).into(),
            late: WireLate::write(&tally.late),
        }
    }

    pub(super) fn read(&self, texts: &Reader, visitor_bits: u64) -> Result<Tally, FormatError> {
        let (utm, device, geo) = self.origin.read(texts)?;
        Ok(Tally {
            id: id_of(self.id, visitor_bits),
            version: self.version,
            reason: self.reason,
            number: self.number,
            previous: self.previous.map(|half| id_of(half, visitor_bits)),
            started_at: self.started_at,
            last_activity: after(self.started_at, self.lasted)?,
            event_count: self.event_count,
            page_views: self.page_views,
            entry_url: texts.get(self.entry_url)?,
            landing_page: texts.get(self.landing_page)?,
            exit_page: texts.get(self.exit_page)?,
            referrer: texts.get(self.referrer)?,
            utm,
            click: self.click.map(u64::from_be_bytes),
            device,
            geo,
            properties: read_pairs(&self.properties, texts)?.into_iter().collect::<BTreeMap<_, _>>(),
            ended_by_call: self.ended_by_call,
            aliases: self.aliases.iter().map(|&half| id_of(half, visitor_bits)).collect(),
            seen: read_prints(&self.seen)?,
            late: self.late.read()?,
        })
    }
}

impl WireEntry {
    fn write(entry: &Entry, before: Millis, origins: &mut Vec<WireOrigin>, texts: &Texts<'_>) -> Self {
        let context = &entry.context;
        let origin = WireOrigin::write(context.utm.as_ref(), context.device.as_ref(), context.geo.as_ref(), texts);
        let place = origins.iter().position(|known| *known == origin).unwrap_or_else(|| {
            origins.push(origin);
            origins.len() - 1
        });
        Self {
            gap: entry.at.abs_diff(before),
            uuid: match canonical(&entry.uuid) {
                Some(bits) => WireUuid::Bits(bits.into_bytes()),
                None => WireUuid::Text(texts.place(Some(&entry.uuid))),
            },
            kind: WireKind::write(entry.kind),
            url: texts.place(context.url.as_deref()),
            referrer: texts.place(context.referrer.as_deref()),
            origin: place as u32,
            click: entry.click.map(u64::to_be_bytes),
            properties: pairs(entry.properties.iter().map(|(key, value)| (key, value)), texts),
        }
    }

    fn read(&self, before: Millis, origins: &[WireOrigin], texts: &Reader) -> Result<Entry, FormatError> {
        let origin = origins.get(self.origin as usize).ok_or(FormatError::Rule("an entry's context is not there"))?;
        let (utm, device, geo) = origin.read(texts)?;
        Ok(Entry {
            at: after(before, self.gap)?,
            uuid: match &self.uuid {
                WireUuid::Bits(bits) => Uuid::from_bytes(*bits).to_string(),
                WireUuid::Text(place) => texts.require(*place)?,
            },
            kind: self.kind.read(),
            context: SessionContext {
                url: texts.get(self.url)?,
                referrer: texts.get(self.referrer)?,
                utm,
                device,
                geo,
            },
            click: self.click.map(u64::from_be_bytes),
            properties: read_pairs(&self.properties, texts)?,
        })
    }
}

impl WireKind {
    fn write(kind: Kind) -> Self {
        match kind {
            Kind::Pageview => Self::Pageview,
            Kind::Event => Self::Event,
            Kind::Touch => Self::Touch,
            Kind::End => Self::End,
        }
    }

    fn read(self) -> Kind {
        match self {
            Self::Pageview => Kind::Pageview,
            Self::Event => Kind::Event,
            Self::Touch => Kind::Touch,
            Self::End => Kind::End,
        }
    }
}

impl WireNotice {
    fn write(notice: &Notice, texts: &Texts<'_>) -> Self {
        match notice {
            Notice::Merged { from, into, version } => {
                Self::Merged { from: id_half(*from), into: id_half(*into), version: *version }
            }
            Notice::Split { from, into, at, uuid, version } => Self::Split {
                from: id_half(*from),
                into: id_half(*into),
                at: *at,
                uuid: texts.place(Some(uuid)),
                version: *version,
            },
        }
    }

    fn read(&self, texts: &Reader, bits: u64) -> Result<Notice, FormatError> {
        Ok(match *self {
            Self::Merged { from, into, version } => {
                Notice::Merged { from: id_of(from, bits), into: id_of(into, bits), version }
            }
            Self::Split { from, into, at, uuid, version } => Notice::Split {
                from: id_of(from, bits),
                into: id_of(into, bits),
                at,
                uuid: texts.require(uuid)?,
                version,
            },
        })
    }
}

impl<'a> WireTimeline<'a> {
    pub(super) fn write(timeline: &Timeline, texts: &Texts<'a>) -> Self {
        let mut contexts = Vec::new();
        let mut before = 0;
        let journal = timeline.journal.iter().map(|entry| {
            let wire = WireEntry::write(entry, before, &mut contexts, texts);
            before = entry.at;
            wire
        });
        let journal = journal.collect();
        Self {
            texts: texts.stored(),
            seq: timeline.seq,
            frontier: (timeline.frontier != Millis::MIN).then_some(timeline.frontier),
            archived: timeline.archived,
            previous: timeline.previous.as_ref().map(|previous| WirePrevious {
                id: id_half(previous.id),
                started_at: previous.started_at,
                lasted: previous.last_activity.abs_diff(previous.started_at),
                event_count: previous.event_count,
                ended_by_call: previous.ended_by_call,
                number: previous.number,
            }),
            ended: timeline.ended.iter().map(|tally| WireSession::write(tally, texts)).collect(),
            open: timeline.open.as_ref().map(|tally| WireSession::write(tally, texts)),
            contexts,
            journal,
            heads: timeline.heads.iter().map(WireHead::write).collect(),
            notices: timeline.notices.iter().map(|notice| WireNotice::write(notice, texts)).collect(),
        }
    }

    pub(super) fn read(&self, visitor: Visitor) -> Result<Timeline, FormatError> {
        let bits = visitor.bits();
        let texts = Reader::new(&self.texts)?;
        let mut journal = Vec::with_capacity(self.journal.len());
        let mut before = 0;
        for wire in &self.journal {
            let entry = wire.read(before, &self.contexts, &texts)?;
            before = entry.at;
            journal.push(entry);
        }
        let previous = match &self.previous {
            Some(previous) => Some(Previous {
                id: id_of(previous.id, bits),
                started_at: previous.started_at,
                last_activity: after(previous.started_at, previous.lasted)?,
                event_count: previous.event_count,
                ended_by_call: previous.ended_by_call,
                number: previous.number,
            }),
            None => None,
        };
        Ok(Timeline {
            visitor,
            seq: self.seq,
            frontier: self.frontier.unwrap_or(Millis::MIN),
            archived: self.archived,
            previous,
            ended: self.ended.iter().map(|wire| wire.read(&texts, bits)).collect::<Result<_, _>>()?,
            open: self.open.as_ref().map(|wire| wire.read(&texts, bits)).transpose()?,
            journal,
            heads: self.heads.iter().map(|wire| wire.read(bits)).collect::<Result<_, _>>()?,
            notices: self.notices.iter().map(|wire| wire.read(&texts, bits)).collect::<Result<_, _>>()?,
            due_at: None,
        })
    }
}

impl WireHead {
    fn write(head: &Head) -> Self {
        Self {
            entry: head.entry as u32,
            id: id_half(head.id),
            leads: head.leads,
            version: head.version,
            late: WireLate::write(&head.late),
        }
    }

    fn read(&self, bits: u64) -> Result<Head, FormatError> {
        Ok(Head {
            entry: self.entry as usize,
            id: id_of(self.id, bits),
            leads: self.leads,
            version: self.version,
            late: self.late.read()?,
        })
    }
}
