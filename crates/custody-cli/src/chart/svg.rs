//! A chart as SVG.

use super::layout::{BOX_WIDTH, Layout, Line, Rect, place, widths};
use super::markup::Markup;
use super::words::{counted, number, size, wrap};
use super::{Chart, Group, Kind, Lane, State};

/// How everything looks, in a picture of its own and in a page. Colours never say anything that words
/// do not say too.
pub(super) const STYLE: &str = "
.chart text{font-family:system-ui,'Segoe UI','DejaVu Sans',Helvetica,Arial,sans-serif;font-size:12px;fill:#3d4852}
.chart .title{font-size:15px;font-weight:600;fill:#14202b}
.chart .lane{fill:#f3f6f9;stroke:#d5dde5}
.chart .box{fill:#fff;stroke:#93a3b3;stroke-width:1.2}
.chart .bar{fill:#93a3b3}
.chart .passed .bar{fill:#1f8a4c}
.chart .passed .state{fill:#17703d}
.chart .refused .box{fill:#fdecea;stroke:#c62828;stroke-width:2.5}
.chart .refused .bar{fill:#c62828}
.chart .refused .state,.chart .bad{fill:#b71c1c;font-weight:600}
.chart .open .box{stroke-dasharray:6 4}
.chart .origin .box{fill:#eef3fb}
.chart .line{fill:none;stroke:#7b8b9a;stroke-width:1.5}
.chart .many{stroke-width:3}
.chart .line.refused{stroke:#c62828}
.chart .tip{fill:#7b8b9a}
@media (prefers-color-scheme:dark){
.chart text{fill:#b8c4cf}
.chart .title{fill:#eef3f7}
.chart .lane{fill:#1a222b;stroke:#32404d}
.chart .box{fill:#222d38;stroke:#5d6f80}
.chart .passed .state{fill:#5fce8c}
.chart .refused .box{fill:#3a1c1e;stroke:#ff6b64}
.chart .refused .bar{fill:#ff6b64}
.chart .refused .state,.chart .bad{fill:#ff8a84}
.chart .origin .box{fill:#1f2c40}
.chart .line{stroke:#71818f}
.chart .line.refused{stroke:#ff6b64}
.chart .tip{fill:#71818f}
}
";

/// Sizes of type, in pixels.
const TITLE: i64 = 15;
const TEXT: i64 = 12;
/// From one line of text to the next.
const TITLE_STEP: i64 = 20;
const TEXT_STEP: i64 = 17;
/// From a box's edge to its text.
const INSET: i64 = 16;
/// How far each of the boxes behind a box of many stands out.
const BEHIND: i64 = 5;
/// How many codes a box names.
const CODES: usize = 3;

/// A line of text: how it looks, its size, and what it says.
struct Text {
    class: &'static str,
    size: i64,
    words: String,
}

fn texts(class: &'static str, size: i64, words: &str, room: i64, most: usize) -> Vec<Text> {
    let lines = wrap(words, size, room, most).into_iter();
    lines.filter(|line| !line.is_empty()).map(|words| Text { class, size, words }).collect()
}

const fn step(text: &Text) -> i64 {
    if text.size == TITLE { TITLE_STEP } else { TEXT_STEP }
}

/// A picture of its own: a file.
pub(crate) fn file(chart: &Chart, title: &str) -> String {
    let mut svg = Markup::default();
    svg.raw("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n").append(&drawing(chart, title, false));
    svg.into_string()
}

/// The `svg` element; in a page, boxes are links to what the page says of them.
pub(super) fn drawing(chart: &Chart, title: &str, in_page: bool) -> Markup {
    let room = BOX_WIDTH - INSET - 8;
    let bodies: Vec<Vec<Text>> = chart.groups.iter().map(|group| body(group, room)).collect();
    let heights: Vec<i64> =
        bodies.iter().map(|body| body.iter().map(step).sum::<i64>() + 22).collect();
    let lanes = chart.lanes.iter().zip(widths(chart));
    let headers: Vec<Vec<Text>> = lanes.map(|(lane, width)| header(lane, width)).collect();
    let header_height = |header: &Vec<Text>| header.iter().map(step).sum::<i64>() + 10;
    let used = |lane: usize| chart.groups.iter().any(|group| group.lane == Some(lane));
    let tallest = headers.iter().enumerate().filter(|(lane, _)| used(*lane));
    let tallest = tallest.map(|(_, header)| header_height(header)).max().unwrap_or_default();
    let layout = place(chart, &heights, tallest);

    let mut svg = Markup::default();
    svg.raw("<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" role=\"img\" width=\"");
    svg.text(layout.width).raw("\" height=\"").text(layout.height).raw("\" viewBox=\"0 0 ");
    svg.text(layout.width).raw(" ").text(layout.height).raw("\">\n");
    svg.element("<title>", title, "</title>\n");
    if !in_page {
        svg.raw("<style>").raw(STYLE).raw(PAPER).raw("</style>\n");
        svg.raw("<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n");
    }
    for (rect, header) in layout.lanes.iter().zip(&headers) {
        if let Some(rect) = rect {
            lane(&mut svg, *rect, header);
        }
    }
    lines(&mut svg, chart, &layout);
    for (i, ((group, rect), body)) in
        chart.groups.iter().zip(&layout.boxes).zip(&bodies).enumerate()
    {
        let linked = in_page && group.kind == Kind::Step;
        if linked {
            svg.raw("<a href=\"#group-").text(i).raw("\">");
        }
        boxed(&mut svg, group, *rect, body);
        svg.raw(if linked { "</a>\n" } else { "\n" });
    }
    svg.raw("</svg>\n");
    svg
}

/// What a picture of its own stands on.
const PAPER: &str = ".paper{fill:#fff}@media (prefers-color-scheme:dark){.paper{fill:#12181e}}";

fn header(lane: &Lane, room: i64) -> Vec<Text> {
    let mut header = texts("title", TITLE, &lane.title, room, 2);
    header.extend(texts("", TEXT, &lane.release, room, 2));
    for (word, said) in [("approved by", &lane.approved), ("proposed by", &lane.proposed)] {
        if !said.is_empty() {
            // a name and its role stay together
            let said = said.replace(" (", "\u{a0}(");
            header.extend(texts("", TEXT, &format!("{word} {said}"), room, 4));
        }
    }
    for code in &lane.codes {
        header.extend(texts("bad", TEXT, &format!("✗ {code}"), room, 2));
    }
    header
}

fn body(group: &Group, room: i64) -> Vec<Text> {
    let title = match (group.kind, group.documents.len()) {
        (Kind::Step, count) if count > 1 => format!("{} × {}", group.title, number(count)),
        (Kind::Source, _) => "source".into(),
        _ => group.title.clone(),
    };
    let mut body = texts("title", TITLE, &title, room, 3);
    let mut more = |text: &str, most: usize| body.extend(texts("", TEXT, text, room, most));
    if group.kind == Kind::Source {
        let (repository, revision) = group.title.split_once(" @ ").unwrap_or((&group.title, ""));
        more(repository, 2);
        more(&revision.chars().take(12).collect::<String>(), 1);
    }
    let machines: Vec<&str> = group.machines.iter().map(String::as_str).collect();
    match machines.as_slice() {
        [] => {}
        [first, second, _, rest @ ..] if !rest.is_empty() => {
            more(&format!("by {first}, {second} and {} more", rest.len() + 1), 2);
        }
        few => more(&format!("by {}", few.join(", ")), 2),
    }
    if group.artifacts > 0 {
        let artifacts = counted(group.artifacts, "file", "files");
        more(&format!("{artifacts}, {}", size(group.bytes)), 1);
    }
    match group.places.iter().next() {
        Some(place) if group.places.len() == 1 => more(&format!("→ {place}"), 3),
        Some(_) => more(&format!("→ {} places", group.places.len()), 1),
        None => {}
    }
    body.extend(state(group, room));
    body
}

fn state(group: &Group, room: i64) -> Vec<Text> {
    let said = match group.state {
        State::Plain => return Vec::new(),
        State::Passed if group.kind == Kind::Subject => vec!["✓ accepted".into()],
        State::Passed => vec![format!("✓ {} passed", counted(group.passed, "check", "checks"))],
        State::Open => vec!["not done".into()],
        State::Refused => {
            let named = group.codes.iter().take(CODES).map(|code| format!("✗ {code}"));
            let left = group.codes.len().saturating_sub(CODES);
            let more = (left > 0).then(|| format!("and {left} more"));
            let alone = group.codes.is_empty().then(|| "✗ refused".to_owned());
            alone.into_iter().chain(named).chain(more).collect()
        }
    };
    said.iter().flat_map(|line| texts("state", TEXT, line, room, 2)).collect()
}

fn write_texts(svg: &mut Markup, x: i64, top: i64, texts: &[Text]) {
    let mut y = top;
    for text in texts {
        y += step(text);
        svg.raw("<text x=\"").text(x).raw("\" y=\"").text(y - 4);
        if !text.class.is_empty() {
            svg.raw("\" class=\"").raw(text.class);
        }
        svg.element("\">", &text.words, "</text>");
    }
}

fn rect(svg: &mut Markup, class: &'static str, rect: Rect, radius: i64) {
    svg.raw("<rect class=\"").raw(class).raw("\" x=\"").text(rect.x).raw("\" y=\"").text(rect.y);
    svg.raw("\" width=\"").text(rect.width).raw("\" height=\"").text(rect.height);
    svg.raw("\" rx=\"").text(radius).raw("\"/>");
}

fn lane(svg: &mut Markup, place: Rect, header: &[Text]) {
    svg.raw("<g>");
    rect(svg, "lane", place, 10);
    write_texts(svg, place.x + 22, place.y + 8, header);
    svg.raw("</g>\n");
}

fn boxed(svg: &mut Markup, group: &Group, place: Rect, body: &[Text]) {
    svg.raw(match (group.kind, group.state) {
        (Kind::Source | Kind::External, _) => "<g class=\"origin\">",
        (_, State::Refused) => "<g class=\"refused\">",
        (_, State::Open) => "<g class=\"open\">",
        (_, State::Passed) => "<g class=\"passed\">",
        (_, State::Plain) => "<g>",
    });
    svg.element("<title>", whole(group), "</title>");
    let behind = if group.documents.len() > 1 { 2 } else { 0 };
    for i in (1..=behind).rev() {
        rect(svg, "box", Rect { x: place.x + i * BEHIND, y: place.y + i * BEHIND, ..place }, 6);
    }
    rect(svg, "box", place, 6);
    rect(
        svg,
        "bar",
        Rect { x: place.x + 5, y: place.y + 8, width: 4, height: place.height - 16 },
        2,
    );
    write_texts(svg, place.x + INSET, place.y + 7, body);
    svg.raw("</g>");
}

/// What a box says when it is pointed at: nothing left out.
fn whole(group: &Group) -> String {
    let listed = |word: &str, items: Vec<String>| {
        if items.is_empty() { String::new() } else { format!("; {word} {}", items.join(", ")) }
    };
    let machines = listed("by", group.machines.iter().take(100).cloned().collect());
    let places = listed("published to", group.places.iter().take(20).cloned().collect());
    let codes = listed("refused:", group.codes.iter().map(ToString::to_string).collect());
    format!("{}{machines}{places}{codes}", group.title)
}

fn lines(svg: &mut Markup, chart: &Chart, layout: &Layout) {
    for line in &layout.lines {
        let refused = chart.groups[line.from].state == State::Refused;
        svg.raw("<path class=\"line").raw(if line.weight > 1 { " many" } else { "" });
        svg.raw(if refused { " refused\" d=\"" } else { "\" d=\"" });
        path(svg, line);
        svg.raw("\"/>");
        if let Some((x, y)) = line.points.last() {
            svg.raw("<path class=\"tip\" d=\"M").text(x).raw(" ").text(y).raw("l-9 -5v10z\"/>\n");
        }
    }
}

fn path(svg: &mut Markup, line: &Line) {
    for (i, pair) in line.points.chunks(2).enumerate() {
        let [(from_x, from_y), (to_x, to_y)] = pair else { continue };
        if i == 0 {
            svg.raw("M").text(from_x).raw(" ").text(from_y);
        } else {
            svg.raw("L").text(from_x).raw(" ").text(from_y);
        }
        let reach = ((to_x - from_x) / 2).max(24);
        svg.raw("C").text(from_x + reach).raw(" ").text(from_y).raw(" ");
        svg.text(to_x - reach).raw(" ").text(to_y).raw(" ");
        svg.text(to_x).raw(" ").text(to_y);
    }
}
