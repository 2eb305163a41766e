//! How each code comes about: one example each.

use super::Code;

macro_rules! examples {
    ($($code:ident $example:literal;)+) => {
        impl Code {
            /// How it comes about: something that happened, or that somebody did.
            pub const fn example(self) -> &'static str {
                match self { $(Self::$code => $example,)+ }
            }
        }
    };
}

examples! {
    ParseJsonInvalid "a download ended early, and the bundle's last line has half an envelope";
    ParseDuplicateKey "somebody put a second \"step\" member into a task, hoping that worker and judge read different ones";
    ParseTrailingData "two envelopes were written into one .json file";
    ParseDepthExceeded "a document of ten thousand opening brackets, made to exhaust whoever reads it";
    ParseSizeExceeded "one step packed a whole archive of languages, and its manifest grew past the limit";
    ParseCountExceeded "a step listed more than 100,000 artifacts";
    ParseNumberUnsafe "another tool wrote the size of a file as 1.5e9";
    ParseUnicodeInvalid "an editor put a byte order mark before the policy's first line";
    ParseUnknownField "a task of a newer Custody was handed to an older one";
    ParseFieldMissing "a script made a request by hand and forgot when it expires";
    ParseFieldType "a script wrote a step's name as a list, or a version with a blank in it";
    ParseBase64Invalid "a mail program wrapped the payload of an envelope into lines";
    ParseTimeInvalid "somebody typed --at 2026-11-22 without the hour";
    EnvPayloadType "a signed policy was passed where a signed statement was wanted";
    EnvNoSignature "an envelope was exported before anybody had signed it";
    EnvSignatureInvalid "a mirror changed one byte of a manifest on its way";
    EnvKeyUnknown "a worker was set up anew and signs with a key that no policy lists yet";
    EnvAlgForbidden "a person signed plainly, as only machines do";
    EnvThresholdNotMet "two people must sign, and one of them signed twice with two keys";
    StmtType "an envelope around a certificate was added as evidence";
    StmtPredicateType "a task names a sign-off where its authorization should stand";
    StmtBuildType "provenance of a hosted build service lies among the evidence";
    StmtParameterUnexpected "a worker's manifest has a parameter that the task never gave";
    StmtSubjectEmpty "a build went well and wrote no file at all";
    StmtSubjectDuplicate "a manifest lists dist/setup.exe twice, with two digests";
    StmtDigestMissing "another tool recorded a file by name and size only";
    StmtDigestAlg "an old script recorded files with SHA-1";
    StmtDigestFormat "somebody wrote the first twelve digits of a digest by hand";
    PolicyUntrusted "a file was verified without --pin, or with the pin of another project";
    PolicySignatureThreshold "the next policy was sent out when one of two root people had signed it";
    PolicyRollback "a mirror served last year's bundle, under whose policy a stolen key is still good";
    PolicyVersionGap "version 3 of the policy arrived, and nobody brought version 2";
    PolicyEquivocation "root people signed two different texts as version 4";
    PolicyExpired "nobody renewed the policy, and it ended last night";
    PolicyInvalid "a role was renamed, and one phase still asks for it by its old name";
    PolicyMismatch "a request names a policy that the root people never signed";
    PolicyStepUnknown "the pipeline file has a new step that the policy does not allow yet";
    PolicyProductUnknown "somebody proposed a release of helo instead of hello";
    PolicyKeyDuplicate "one key was enrolled for two people, who would have counted as two";
    PolicyKeyWeak "an RSA key of 1024 bits was put into the policy";
    PolicyKeyPurpose "a build machine's key signed an authorization";
    PolicyKeyExpired "a machine was replaced in March, and its old key signed in May";
    PolicyKeyNotYetValid "a key that begins on Monday signed on Sunday";
    PolicyKeyRevoked "a laptop was stolen; its owner's key was revoked, and a sign-off of last week was made with it";
    TimeUntrusted "a battery died, and the machine believes that it is 1970";
    ChainLinkMissing "a bundle was put together by hand, and one sign-off was left out";
    ChainDigestMismatch "a link leads to a document with other bytes than it names";
    ChainTaskMissing "somebody with a worker's key signed a manifest for a build that no one had asked for";
    ChainTaskMismatch "the task says who created it, and the manifest says somebody else";
    ChainStepMissing "a file was built and never published, and users are offered it";
    ChainStepMismatch "a file of the step partial was passed where one of the step build was asked for";
    ChainProductMismatch "a good file of another product was put where users look for this one";
    ChainReleaseMismatch "a mirror serves 1.0.0, which has a known hole, as 1.1.0";
    ChainInstanceMismatch "a file of staging was put on the production site";
    ChainSourceMismatch "people approved one commit, and another was built";
    ChainSourceForbidden "a commit added a submodule of a repository that the policy does not name";
    ChainSourceUnsigned "somebody pushed a commit without signing it, and the policy demands a signature of releng";
    ChainInputUnaccounted "a step used a file that no earlier step made and no task pins";
    ChainForked "a task was restored from a copy of the store and run again, with other results";
    ChainReplayed "a task of last month was handed to a worker once more";
    ChainStale "a task waited in a queue for three days, and the policy allows one";
    ChainTimeOrder "a worker's clock is two hours ahead, so its run ends in the future";
    ChainThresholdDisagree "two builders were to make the same bytes and did not";
    ChainCycle "two tasks name each other as the origin of their inputs";
    ChainDepthExceeded "somebody made a chain of a million tasks to keep the judge busy";
    ChainNodeLimit "somebody made a bundle of two million statements to keep the judge busy";
    WorkerPoolForbidden "custody run was started with the signer's key for a task of the step build";
    WorkerImageMismatch "a step was built in an image that somebody pushed under the old tag";
    WorkerIdentityUnverified "a manifest says that it ran on an EC2 instance, and has no identity document that Amazon signed";
    WorkerIdentityMismatch "the identity document of one instance came with the key of another";
    WorkerIsolationMissing "a step that must run in a container was run without one";
    WorkerInteractive "a container was started with the engine's socket inside";
    WorkerLimitExceeded "a step whose outputs may have 1 GiB wrote a core dump of 4 GiB into dist/";
    KeyUnavailable "the key file is where it was, and its passphrase was mistyped";
    WorkerKeyExposed "a key file was copied with mode 644";
    ArtDigestMismatch "one byte of a download is not what the publisher sent";
    ArtSizeMismatch "a download ended early";
    ArtMissing "a task declares dist/*.tar, and the command wrote none";
    ArtUnlisted "a directory of downloads has one more file than was published";
    ArtNameInvalid "a command wrote a file called --delete";
    ArtNameCollision "a command wrote README and readme";
    ArtNotRegular "a command left a link to /etc/passwd among its outputs";
    ArtChangedDuringRead "a command left a process behind that still writes its log";
    SignoffMissing "an authorization names an approval that is not among the evidence";
    SignoffThresholdNotMet "a phase needs two people, and one approved";
    SignoffRefused "Carol saw the wrong commit in the request and refused it";
    SignoffPersonDuplicate "an authorization counts Bob's two keys as two people";
    SignoffRole "Alice approved as lead, which she is not";
    SignoffSelfApproval "Alice proposed the release and approved it too";
    SignoffContentMismatch "a sign-off for 1.0.0 was attached to the request for 1.1.0";
    SignoffStale "an approval of last week was counted today";
    SignoffWithdrawn "Bob approved in the morning and withdrew at noon";
    SignoffCredentialUnknown "Bob signed with a new key that no policy lists yet";
    SignoffNamespace "a signature that Bob made for git was passed as his sign-off";
    SignoffChallengeMismatch "a page showed one request and had the passkey sign another";
    SignoffOrigin "a look-alike page asked for the passkey";
    SignoffRpid "a security key that was enrolled for another site was used";
    SignoffType "the registration of a passkey was passed as its signature";
    SignoffUpRequired "a program had the security key sign without a touch";
    SignoffUvRequired "a security key was touched, and no PIN was asked for";
    GateStepMismatch "custody run was given a task that only publishes, or custody publish one that runs a command";
    GateInputChanged "a file in the store was overwritten after the gate had looked at it";
    GateCommandMismatch "a manifest says that another command was run than the task's";
    GateDestinationForbidden "a task was to publish to a bucket that the policy does not name";
    GateDestinationConflict "a file of this name with other content is published already";
    GateAlreadyExecuted "custody run was typed twice for one task";
    GateCacheStale "a withdrawal came in while the gate judged";
    GateUnavailable "the bucket to publish to did not answer";
    StoreCorrupt "a disk changed a byte of the store's database";
    StoreRollback "the store was replaced by the copy of last night";
    StoreFull "the disk had no room left for an artifact";
    StoreLocked "two commands wrote to one store for longer than five seconds";
}
