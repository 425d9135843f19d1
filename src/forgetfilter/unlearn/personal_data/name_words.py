"""Words of many languages that stand beside people's names or are mistaken for them; no names are among them."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PARTICLES = _words(
    """
    van von de der den del della di da dos du la le bin ibn al el ten ter zu
    """
)
# Between a noun and a place or thing too: banque de France, comune di Bari.
BEFORE_A_PLACE_TOO = frozenset(["de", "del", "della", "di", "da", "dos", "du", "la", "le", "el", "al"])
# In front of a name, with a capital or in capitals throughout.
TITLES = frozenset(
    _words(
        """
    Mr Mrs Ms Miss Mx Dr Prof Professor Herr Herrn Frau Familie Mme Mlle Madame Monsieur Maître
    Señor Señora Señorita Sr Sra Dña Doña Senhor Senhora Dra Signor Signora Signorina Sig Sig.ra Dott
    Dott.ssa Dhr Mevr Mevrouw Meneer Pani Panie Państwo Sayın Sn Fru Herra Rouva
    Г-н Г-жа Господин Госпожа Гражданин Гражданка
    """
    )
)
NOBLE = ("Sir", "Lady", "Lord")  # a part of what somebody is called
# Titles in small letters.
SMALL_TITLES = _words(
    """
    mr. mrs. ms. dr. prof. señor señora madame monsieur don doña docteur senhor senhora dona signor signora
    signorina dottor dottoressa dott. heer mevrouw meneer dhr. mevr. pani pana panu panią г-н г-жа господин госпожа
    """
)
GREETINGS = _words(
    """
    hi hello hey dear hola bonjour hallo lieber liebe liebes cher chère querido querida estimado estimada ciao caro
    cara olá prezado prezada beste geachte hoi hej cześć szanowny szanowna merhaba sayın sevgili salut привет
    здравствуйте дорогой дорогая уважаемый уважаемая
    """
)
FORMULA = (  # closes a letter
    r"regards|best|sincerely|yours|cheers|thanks|thank you|love|grüßen?|grüsse|gruß|cordialement|bien à vous|"
    r"amicalement|salutations|saludos?|atentamente|abrazos?|salut[io]|cordialmente|abbraccio|atenciosamente|abraços?|"
    r"cumprimentos|beijos?|groet(?:en|jes)?|hoogachtend|pozdrawiam|pozdrowienia|(?:z )?poważaniem|saygılar(?:ımla)?|"
    r"sevgiler(?:imle)?|selamlar|hälsningar|hilsen|mvh|(?:s )?pozdravem|terveisin|(?:с )?уважением|"
    r"пожеланиями"
)
# What a field that holds a person's name is called.
FIELDS = (
    r"name|full[ _-]?name|(?:first|last|given|family|customer|client|patient|contact|holder)[ _-]?name|surname|"
    r"forename|customer|client|patient|author|contact|guardian|"
    r"vorname|nachname|familienname|kontakt|patientin|kunde|kundin|ansprechpartner(?:in)?|kontoinhaber(?:in)?|"
    r"nom|pr[ée]nom|nom complet|titulaire|destinataire|nombre|apellidos?|titular|destinatario|paciente|cliente|"
    r"nome|nome completo|cognome|intestatario|paziente|sobrenome|apelido|naam|voornaam|achternaam|contactpersoon|klant|"
    r"imię|nazwisko|imię i nazwisko|klient|odbiorca|soyadı?|ad[ıi]? soyad[ıi]?|müşteri|namn|förnamn|efternamn|navn|"
    r"fornavn|etternavn|efternavn|jméno|příjmení|nimi|nume|prenume|"
    r"имя|фамилия|отчество|фио|клиент|пациент|получатель|ім'я|прізвище|піб|όνομα|επώνυμο|ονοματεπώνυμο|"
    r"الاسم|الاسم الكامل|اسم العميل|اسم المريض|नाम|पूरा नाम|ग्राहक|שם|שם מלא"
)

LITTLE = frozenset(
    _words(  # that follow "my name is" and its like, or close a letter, and are no names
        """
    spelled spelt misspelled mispronounced wrong right correct incorrect missing listed mentioned changed known
    important unimportant irrelevant private secret unknown anonymous confidential hidden mud none null nobody here
    there somewhere actually really also already always just probably spoken pronounced hard difficult easy
    common rare long short different same similar mine yours legion being used by and or but
    team staff support service customer management department office admin editor editors family everyone all
    y e o u nos el la los las un una de del en con por para que como no si yo mi tu su es soy vivo tengo pero aquí
    der die das ein eine einen und oder aber ich du er sie es wir ihr euch sich nicht kein keine ja nein hier
    von aus in im am bin wohne komme habe mit für alle so gut sehr jetzt anders
    le les des et ou mais je il elle nous vous ne pas ici au aux avec pour par dans sur comme j suis habite vis
    il lo gli ed ma io non qui sono abito vivo com ele ela eu e moro tenho
    en ik ben woon uit niet och jag är från bor inte i og jeg er fra ikke ja jestem z mieszkam nie a jsem jsi
    ve ben değil és vagyok și sunt dan saya và tôi là и я из живу мне не но у зовут і έχω και είμαι
    है हैं हूँ और मैं से का की के को ने में पर जी आवश्यक مطلوب و أنا من في على هو هي ليس مكتوب موجود يسكن אני ואני של על
    """
    )
)
ALSO_NAMES = frozenset(
    ["an", "my", "do", "so", "to", "will", "may", "april", "june", "august", "see", "love"]
)
# Capitalised at the start of a sentence, in a title or on a calendar, and no part of a person's name.
NOT_NAMES = frozenset(
    _words(
        """
    a about after all also although am an and another any anyone are as ask at be because been before being
    both but by can could customer dear did do does each either every everyone everything excuse few find
    first follow for from get give go good great had has have he hello help her here hi his how however i if
    in indeed into is it its just last let like look made make many may maybe me might more most much must my
    name need never new no none not nothing now of off ok okay on once one only or other our out over people
    perhaps please put said same saw say see she should since sir so some someone something sometimes sorry
    still such sure take tell than thank thanks that the their them then there these they thing think this
    those though thus to today together tomorrow too try under unlike until up us use very want was we well
    were what when where whether which while who whom whose why will with would written yes yesterday yet you
    your monday tuesday wednesday thursday friday saturday sunday january february march april june july
    august september october november december christmas easter north south east west northern southern
    eastern western central united kingdom states republic island islands city county lake mount river valley
    beach park san santa saint york street avenue road lane drive suite apt box university college school
    institute department ministry museum hospital bank company ltd inc group club association festival award
    prize orchestra band album novel movie film song international national american english french german
    british european chinese japanese spanish italian russian indian mr mrs ms miss dr prof professor phone
    email address date fax office mobile card account number credit sie ihnen ich wir
    universität universidad université universidade academia académie hochschule institut instituto bahnhof
    hauptbahnhof flughafen stadt verein ministerium ministerio ministère banco banque société république república
    republik stiftung gesellschaft verlag zeitung krankenhaus école lycée hôpital colegio plaza aires sankt
    required optional unknown anonymous obligatoire requis obligatorio obbligatorio pflichtfeld verplicht wymagane
    zorunlu обязательно servizio servicio apoyo apoio soporte suporte ekibi ekipa поддержки klantenservice
    all leute alle pessoal ragazzi wszystkim herkese welt mundo monde mondo dünya yolcumuz yetkili üyemiz
    kunden kunde klient klienci kliencie klanten klant cliente clientes clienti client clients müşteri müşterimiz
    kollegen kollege collega colleghi collègues colegas kolleger коллеги друзья amigos amici vrienden freunde
    arkadaşlar przyjaciele damen herren equipe equipa équipe equipo squadra zespół команда служба kundenservice
    kundendienst serviceteam klantenservice hizmetleri het gare estación stazione estação dworzec вокзал station
    aéroport aeropuerto aeroporto document documents click allgemeine allgemeinen allgemeiner allgemeines deutsche
    deutschen deutscher deutsches europäische europäischen europäischer europäisches internationale internationalen
    happy birthday machine learning deep visual intelligence theory minister
    service services federal public digital policy policies innovation web website websites site online internet
    domain economic economics technology technologies technical experience act administration community
    information management government social content center centre statistics development program programme
    programs programming project projects research agency health security app apps application applications
    product products data labor labour language languages analytics analysis design education challenge media
    location user users science sciences director executive chief manager affairs global usability officer control
    records record resources resource news cultural culture guide guides guidelines disease history commons team
    opportunities metrics metric foundation civic fiscal system systems network software hardware server database
    code error errors file files memory score rate rates average median mean total value style practices energy
    accessibility council division tool tools police immigration organization organisation anthropology league
    protection question questions answer engagement veterans acquisition performance market marketing homeland
    building trade privacy terms writing natural personnel budget magazine industry urban knowledge responsive
    developer engineer engineering training employment highway emergency initiative bureau transformation gallery
    support assistant analyst senior junior direct report reports reporting strategist strategy strategic
    operation operations accessible communications communication cancer rights civil safety relations form forms
    revenue corporation hurricane image images census modernization specialist consultant coordinator agreement
    business store quantitative review football arts settings password profile default overview introduction
    summary chapter appendix section table figure update release version build test tests order delivery shipping
    payment invoice world war union unión européenne europea europeia nacional nationale nazionale centrale ley
    loi gesetz parque parc parco musée museo museu teatro théâtre parlament parlamento parlement bundestag
    constitución congreso senado assemblée tribunal corte suprema supremo suprême театр банк университет музей
    министерство
    """
    )
)
# Words that begin a sentence and no name; within a name some of them may stand (von der Leyen, El Greco's son).
OPENING = frozenset(
    _words(
        """
    der die das dem den des ein eine einen einem einer ich wir ihr ihre ihren ihrem sie es und mein meine meinen
    unser unsere diese dieser dieses seine bitte sehr geehrte geehrter wenn als auch bei mit nach vor zum zur
    im am beim laut ab aus an auf seit ohne gegen für durch siehe du können haben hallo guten tag kunde kundin
    heute gestern morgen montag dienstag mittwoch donnerstag freitag samstag sonntag tel handy
    le la les un une des et je il elle nous vous mon ma notre votre hier madame monsieur mme mlle bonjour salut vive
    el los las una y yo mi su nuestro señor señora don doña hola buenos buenas días ayer hoy frau herr herrn
    estimado estimada estimados estimadas querido querida prezado prezada gentile gentili egregio
    egregia chers chères geachte beste szanowny szanowna szanowni drogi droga sayın sevgili merhaba ciao olá hej hoi
    salve il gli buongiorno buonasera goedemorgen goedendag bonsoir уважаемый уважаемая уважаемые дорогой дорогая
    здравствуйте привет доктор soy sono sou eu io ik ja jestem jag jeg
    kunde kundin patient patientin mieter mieterin nachbar nachbarin kollege kollegin chefin lehrer lehrerin
    mitarbeiter mitarbeiterin fahrer fahrerin schüler schülerin bruder schwester sohn tochter vater mutter onkel
    tante freund freundin ehemann ehefrau zeuge zeugin angeklagte inhaber inhaberin bewerber bewerberin
    hausmeister ansprechpartner ansprechpartnerin
    """
    )
)
NOT_AT_THE_START = NOT_NAMES | OPENING | {"bin"}  # ich bin Anna Berg
