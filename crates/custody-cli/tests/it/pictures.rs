//! Pages and drawings: they stand alone, show everything, and nothing in them is the evidence's to decide.

use custody_core::digest::Sha256;
use custody_core::encoding::base64;
use serde_json::Value;

use crate::world::World;

fn verify(what: &str) -> String {
    format!("verify {what} --store store")
}

/// The page is one file: no script, nothing from elsewhere, and one style sheet, whose hash the policy of
/// the page names.
fn stands_alone(page: &str) {
    // what is no tag is text: nobody else's `<` gets in
    let tags = page.split('<').skip(1).map(|tag| tag.split('>').next().unwrap());
    for tag in tags {
        let name = tag.split([' ', '/']).find(|word| !word.is_empty()).unwrap();
        let known = "!DOCTYPE html head meta title style body header main h1 h2 h3 p b dl dt dd div details summary \
                     code pre table tr th td br span a svg g rect path text";
        assert!(known.split_whitespace().any(|known| known == name), "<{tag}>");
        let attributes = tag.split('"').step_by(2).flat_map(|part| part.split(' '));
        let called = attributes.filter_map(|word| word.strip_suffix('='));
        for attribute in called {
            let bad =
                attribute.starts_with("on") || ["src", "style", "srcset"].contains(&attribute);
            assert!(!bad, "<{tag}>");
        }
    }
    assert!(!page.contains("url(") && !page.contains("@import"));
    let links = page.matches("href=\"").count();
    assert_eq!(links, page.matches("href=\"#").count(), "a link leads out of the page");
    let style = page.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
    assert_eq!(page.matches("<style").count(), 1);
    let hash = base64(Sha256::of(style.as_bytes()).as_bytes());
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'"
    );
    assert!(page.contains(&policy), "{page}");
}

#[test]
fn a_page_tells_everything_and_stands_alone() {
    let world = World::published();
    let said = world.done(&format!("{} --html page.html", verify("www/hello.txt")));
    let page = world.read("page.html");
    stands_alone(&page);
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("✓ Accepted"));
    // every document, every rule, every person and machine, every file
    let report = said.json();
    for node in report["nodes"].as_array().unwrap() {
        if let Some(id) = node["id"].as_str() {
            assert!(page.contains(id), "{id}");
        }
        for check in node["checks"].as_array().unwrap() {
            assert!(page.contains(check["rule"].as_str().unwrap()));
        }
    }
    for word in [
        "alice",
        "bob",
        "carol",
        "releng",
        "builder",
        "packer",
        "publisher",
        "scheduler",
        "https://git.example.org/hello",
        "dist/second.txt",
        "dist/all.bin",
        "hostname",
    ] {
        assert!(page.contains(word), "{word}");
    }
    // what is there is not replaced
    world.custody(&format!("{} --html page.html", verify("www/hello.txt"))).ended(3);
    assert_eq!(page, world.read("page.html"));
    let two = verify("www/hello.txt www/all.bin");
    world.custody(&format!("{two} --html two.html")).ended(2);
    assert!(!world.path("two.html").exists());
}

#[test]
fn a_refused_file_has_a_page_with_the_reasons_first() {
    let world = World::published();
    world.write("bad/hello.txt", "hello, wOrld\n");
    world
        .custody(&format!("{} --html bad.html", verify("bad/hello.txt")))
        .refused("ART_DIGEST_MISMATCH");
    let page = world.read("bad.html");
    stands_alone(&page);
    assert!(page.contains("✗ Refused") && !page.contains("✓ Accepted"));
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("no {text}"));
    assert!(at("ART_DIGEST_MISMATCH") < at("Why it is refused"));
    assert!(at("Why it is refused") < at("How to read this page"));
    assert!(page.contains("get the file again"), "what to do is missing");
}

#[test]
fn words_of_people_do_not_become_markup() {
    let world = World::fresh();
    let request = world.propose("promote", "");
    let evil = "</style><script>alert(1)</script><img src=x onerror=\"alert(2)\">";
    for person in ["bob", "carol"] {
        let line = format!(
            "release sign-off {request} --store store --as {person} --role releng --key keys/{person} --comment"
        );
        let mut command = world.command(&format!("--json {line}"));
        command.arg(evil);
        world.say(command).done();
    }
    let authorization =
        world.done(&format!("release authorize {request} --store store --key keys/desk")).id();
    world.plan(&authorization);
    world.run_all(&authorization).done();
    world.write("second.txt", "second\n");
    world.done(&format!("{} --step build --html page.html", verify("second.txt")));
    let page = world.read("page.html");
    stands_alone(&page);
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "the comment is shown");
}

fn boxes(said: &Value) -> Vec<(String, String, usize)> {
    let boxes = said["chart"]["boxes"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut boxes: Vec<_> = boxes
        .map(|one| {
            (text(&one["title"]), text(&one["state"]), one["documents"].as_array().unwrap().len())
        })
        .filter(|(_, state, _)| state != "origin")
        .collect();
    boxes.sort();
    boxes
}

fn is(title: &str, state: &str, count: usize) -> (String, String, usize) {
    (title.into(), state.into(), count)
}

#[test]
fn a_release_under_way_is_drawn_with_what_is_open() {
    let world = World::promoted();
    world.shipping();
    let said = world.done("graph --store store --out release.svg").json();
    let passed = [is("build", "passed", 1), is("pack", "passed", 1), is("publish", "open", 1)];
    assert_eq!(boxes(&said), passed);
    let svg = world.read("release.svg");
    assert!(
        svg.contains("phase promote") && svg.contains("phase ship") && svg.contains("not done")
    );
    // the same drawing again, to the byte, and on standard output
    assert_eq!(world.typed("graph --store store").done().out, svg);
    // what is there is not replaced
    world.custody("graph --store store --out release.svg").ended(3);
}

#[test]
fn a_refused_step_stands_out() {
    let world = World::published();
    assert_eq!(world.done("graph www/hello.txt --store store").json()["ok"], true);
    let build = world.list("manifest").remove(0);
    let mut manifest = world.content(&build).as_manifest().unwrap().clone();
    assert_eq!(manifest.step.as_str(), "build");
    manifest.invocation = "again".into();
    world.add(&world.forged(manifest, "packer"));
    let said = world.custody("graph --store store --out bad.svg").ended(1).json();
    assert_eq!(said["codes"], serde_json::json!(["POLICY_KEY_PURPOSE"]));
    let drawn = boxes(&said);
    assert!(
        drawn.contains(&is("build", "refused", 1)) && drawn.contains(&is("build", "passed", 1)),
        "{drawn:?}"
    );
    assert!(world.read("bad.svg").contains("✗ POLICY_KEY_PURPOSE"));
    // the file's own chain does not rest on it
    assert_eq!(world.done("graph www/hello.txt --store store").json()["ok"], true);
    world.write("bad/hello.txt", "x");
    let said = world.custody("graph bad/hello.txt --store store").ended(1).json();
    assert_eq!(boxes(&said), [is("file hello.txt", "refused", 0)]);
}

#[test]
fn which_release_is_drawn_is_said() {
    let world = World::promoted();
    let bundle = world.list("manifest").join(" ");
    world.done(&format!("bundle export --store store --out x.custody.jsonl {bundle}"));
    world.done(&format!("graph --bundle x.custody.jsonl --pin {}", world.pin()));
    world.custody("graph --bundle x.custody.jsonl").refused("POLICY_UNTRUSTED");
    world.custody("graph").ended(2);
    world.custody("graph --store store --version 9.9").refused("CHAIN_STEP_MISSING");
    world.custody("graph --store nowhere").ended(3);
    // a second release
    let line = format!(
        "release propose --store store --product hello --version 2.0 --channel release --phase promote \
         --repository source --key keys/alice --param destination={} --param room=x",
        world.destination()
    );
    let authorization = world.authorize(&world.done(&line).id());
    world.plan(&authorization);
    let said = world.custody("graph --store store").ended(2);
    let message = said.text("message");
    assert!(message.contains("hello 1.0 ") && message.contains("hello 2.0 "), "{message}");
    let said = world.done("graph --store store --version 2.0").json();
    assert_eq!(boxes(&said), [is("build", "open", 1), is("pack", "open", 1)]);
}
